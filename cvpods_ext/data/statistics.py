"""Counts, frequency groups and repeat factors of a long-tailed training set, without a loop over annotations.

Shapes: N = images, P = distinct (image, class) pairs, C = foreground classes. Crowd annotations count nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cvpods_ext.data.annotations.annotations import Annotations

Count = Literal["image", "instance"]
RARE_AT_MOST, COMMON_AT_MOST = 10, 100  # images; the limits that LVIS v1 and v0.5 both follow


@dataclass(frozen=True)
class Pairs:
    """Which class occurs in which image: image (P,) positions in [0, num_images), label (P,), instances (P,)."""

    image: np.ndarray
    label: np.ndarray
    instances: np.ndarray
    num_images: int
    num_classes: int

    def counts(self, count: Count = "image") -> np.ndarray:
        """(C,) int64: images that contain each class, or its instances."""
        weights = None if count == "image" else self.instances
        return np.bincount(self.label, weights, minlength=self.num_classes).astype(np.int64)


def pairs(annotations: Annotations, images: np.ndarray | None = None) -> Pairs:
    """Distinct (image, class) pairs of all images, or of those at the ascending positions `images`."""
    index, num_classes = annotations.index, annotations.num_classes
    selected = ~index.crowd
    position, num_images = index.image, len(annotations)
    if images is not None:
        renumbered = np.full(num_images, -1)
        renumbered[images] = np.arange(len(images))
        position, num_images = renumbered[position], len(images)
        selected &= position >= 0
    codes = position[selected] * num_classes + index.label[selected]
    distinct, instances = np.unique(codes, return_counts=True)
    return Pairs(distinct // num_classes, distinct % num_classes, instances, num_images, num_classes)


def class_counts(annotations: Annotations, count: Count = "image") -> np.ndarray:
    """(C,) int64: images that contain each class, or its instances."""
    return pairs(annotations).counts(count)


def annotated_images(annotations: Annotations) -> np.ndarray:
    """Ascending positions of the images with at least one annotation to train on."""
    index = annotations.index
    return np.unique(index.image[~index.crowd])


def repeat_factors(image_counts: np.ndarray, num_images: int, threshold: float) -> np.ndarray:
    """How often a class should be seen: max(1, sqrt(t / f)), f = share of images with it (LVIS, appendix B.2).

    (C,) -> (C,) float64, every value at least 1; a class without images gets 1.
    """
    return _oversampling(image_counts / max(num_images, 1), threshold)


def instance_repeat_factors(
    image_counts: np.ndarray, instance_counts: np.ndarray, num_images: int, threshold: float
) -> np.ndarray:
    """Repeat factors with f replaced by the geometric mean of image share and instance share (IRFS, Yaman et al. 2023).

    (C,), (C,) -> (C,) float64, every value at least 1.
    """
    shares = image_counts / max(num_images, 1) * (instance_counts / max(instance_counts.sum(), 1))
    return _oversampling(np.sqrt(shares), threshold)


def _oversampling(frequency: np.ndarray, threshold: float) -> np.ndarray:
    present = frequency > 0
    return np.maximum(1.0, np.sqrt(threshold / np.where(present, frequency, np.inf)))


def image_repeat_factors(pairs: Pairs, class_factors: np.ndarray) -> np.ndarray:
    """The largest factor among the classes of each image, 1 where it has none: (C,) -> (N,) float32."""
    factors = np.ones(pairs.num_images, np.float32)
    np.maximum.at(factors, pairs.image, class_factors.astype(np.float32)[pairs.label])
    return factors


def frequency_groups(image_counts: np.ndarray) -> np.ndarray:
    """(C,) of "r", "c", "f": at most 10 images, at most 100, more. For data whose json does not say."""
    return np.where(image_counts <= RARE_AT_MOST, "r", np.where(image_counts <= COMMON_AT_MOST, "c", "f"))


def gini(counts: np.ndarray) -> float:
    """Inequality of class sizes in [0, 1): 0 if all are equal, towards 1 if one class has everything."""
    ordered = np.sort(counts.astype(np.float64))
    total, size = ordered.sum(), len(ordered)
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, size + 1) - size - 1) @ ordered / (size * total))
