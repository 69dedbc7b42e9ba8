"""Pixels counted: which class was predicted where another one is, in every image. All metrics follow from these.

Shapes: H, W = rows and columns of an image, K = classes, I = images, R = pairs of an image and a class that occurs in
it, B = resamples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.ndimage import maximum_filter, minimum_filter

IGNORE = 255  # pixels without ground truth
BOUNDARY_WIDTH = 0.02  # of the image's diagonal: how far from a contour a pixel still belongs to the boundary


@dataclass(frozen=True)
class ImageCounts:
    """One image: confusion (K, K), rows the ground truth, and for boundary IoU the (3, K) areas of the contours."""

    confusion: np.ndarray
    boundary: np.ndarray | None = None

    @property
    def areas(self) -> np.ndarray:
        """(3, K) int64: pixels that are right, predicted, and labelled, of every class."""
        return np.stack((self.confusion.diagonal(), self.confusion.sum(axis=0), self.confusion.sum(axis=1)))


def count(truth: np.ndarray, predicted: np.ndarray, num_classes: int, *, boundary: bool = False) -> ImageCounts:
    """Counts of one image from two uint8 label maps (H, W); pixels whose truth is IGNORE count nowhere."""
    labelled = truth != IGNORE
    codes = truth[labelled].astype(np.int64) * num_classes + predicted[labelled]
    confusion = np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)
    return ImageCounts(confusion, _boundary_areas(truth, predicted, num_classes) if boundary else None)


def _boundary_areas(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """(3, K) int64 as in `ImageCounts.areas`, of the pixels near the contours of each map.

    Boundary IoU (Cheng et al., CVPR 2021) of a class compares the pixels of its ground truth and of its prediction
    that lie near their own contours.
    """
    labelled = truth != IGNORE
    predicted = np.where(labelled, predicted, IGNORE)
    width = max(1, round(BOUNDARY_WIDTH * float(np.hypot(*truth.shape))))
    near_truth, near_predicted = (near_contours(labels, width) & labelled for labels in (truth, predicted))
    both = near_truth & near_predicted & (truth == predicted)
    chosen = (truth[both], predicted[near_predicted], truth[near_truth])
    return np.stack([np.bincount(labels, minlength=num_classes) for labels in chosen])


def near_contours(labels: np.ndarray, width: int) -> np.ndarray:
    """(H, W) bool: pixels with another label, or the border of the image, at most `width` pixels away.

    Distance counts the larger of rows and columns, as in `detection.boundary_iou`. A region without ground truth is a
    label like any other.
    """
    side = 2 * width + 1
    near = maximum_filter(labels, side, mode="nearest") != minimum_filter(labels, side, mode="nearest")
    near[:width], near[-width:], near[:, :width], near[:, -width:] = True, True, True, True
    return near


@dataclass(frozen=True)
class Areas:
    """Areas of all images, as sparse as classes are: image and label (R,), areas (3, R) right, predicted, labelled."""

    image: np.ndarray
    label: np.ndarray
    areas: np.ndarray
    num_images: int
    num_classes: int

    @classmethod
    def gather(cls, images: Iterable[np.ndarray], num_classes: int) -> Areas:
        """From the (3, K) areas of one image after the other."""
        labels, areas = [], []
        for each in images:
            labels.append(np.flatnonzero(each.any(axis=0)))
            areas.append(each[:, labels[-1]])
        image = np.repeat(np.arange(len(labels)), [len(each) for each in labels])
        nothing = np.zeros((3, 0), np.int64)
        return cls(image, np.concatenate([*labels, nothing[0]]), np.hstack([*areas, nothing]), len(labels), num_classes)

    @property
    def totals(self) -> np.ndarray:
        """(3, K) int64: sums over the images."""
        total = np.zeros((3, self.num_classes), np.int64)
        for row, areas in zip(total, self.areas, strict=True):
            np.add.at(row, self.label, areas)
        return total

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """How often each resample holds each image (B, I) -> (3, B, K) float64 sums."""
        shape = (self.num_images, self.num_classes)
        tables = (sparse.csr_matrix((areas.astype(float), (self.image, self.label)), shape) for areas in self.areas)
        return np.stack([(table.T @ weights.T).T for table in tables])
