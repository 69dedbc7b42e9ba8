"""Counts, frequency groups and repeat factors of a long-tailed training set, without a loop over annotations.

Shapes: N = images, P = distinct (image, class) pairs, C = foreground classes. Crowd annotations count nowhere.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.errors import ConfigError

Count = Literal["image", "instance"]
LVIS_LIMITS = (10, 100)  # images of a rare and of a common class at most, in LVIS v1 and v0.5
logger = logging.getLogger(__name__)


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


def count_classes(annotations: Annotations, count: Count = "image") -> np.ndarray:
    """(C,) int64: images that contain each class, or its instances."""
    return pairs(annotations).counts(count)


def annotated_images(annotations: Annotations) -> np.ndarray:
    """Ascending positions of the images with at least one annotation to train on."""
    index = annotations.index
    return np.unique(index.image[~index.crowd])


def training_images(annotations: Annotations, with_empty: bool) -> np.ndarray:
    """Ascending positions of the images to train on, all of them `with_empty`; says how many are left out."""
    annotated = annotated_images(annotations)
    if with_empty:
        return np.arange(len(annotations))
    if len(annotated) < len(annotations):
        logger.info(
            "%d of %d images of %s have no annotation to train on and are left out; "
            "data.train_on_empty_images=True trains on them",
            *(len(annotations) - len(annotated), len(annotations), annotations.paths.name),
        )
    return annotated


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


@dataclass(frozen=True)
class FrequencyGroups:
    """groups (C,) of "r", "c", "f" for rare, common and frequent; `origin` says in words where they are from."""

    groups: np.ndarray
    origin: str


def groups_by_count(image_counts: np.ndarray, limits: tuple[int, int] = LVIS_LIMITS) -> np.ndarray:
    """(C,) of "r", "c", "f": at most so many training images, at most so many, more."""
    rare, common = limits
    if not 0 <= rare <= common:
        raise ConfigError(f"data.frequency_limits={limits}: give the images of a rare, then of a common class at most")
    return np.where(image_counts <= rare, "r", np.where(image_counts <= common, "c", "f"))


def in_words(limits: tuple[int, int]) -> str:
    """The limits of `groups_by_count` as tables and messages say them."""
    return f"rare <= {limits[0]} < common <= {limits[1]} < frequent"


def nothing_repeats(pairs: Pairs, sampler: str, threshold: float) -> str:
    """Why repeat-factor sampling draws every image once, and a threshold that would repeat some; "" if it repeats.

    A class is repeated as soon as the threshold exceeds its frequency f, by the factor sqrt(t / f).
    """
    counts, instances = pairs.counts("image"), pairs.counts("instance")
    frequency = counts[counts > 0] / pairs.num_images
    if sampler == "instance_repeat_factor":
        frequency = np.sqrt(frequency * instances[counts > 0] / instances.sum())
    if not len(frequency) or frequency.min() < threshold:
        return ""
    rarest = frequency.min()
    return (
        f"data.sampler={sampler} repeats no image at data.repeat_threshold={threshold:g}: the rarest class has a "
        f"frequency of {rarest:.3g}. A threshold of {4 * rarest:.2g} would draw its images about twice as often."
    )


def gini(counts: np.ndarray) -> float:
    """Inequality of class sizes in [0, 1): 0 if all are equal, towards 1 if one class has everything."""
    ordered = np.sort(counts.astype(np.float64))
    total, size = ordered.sum(), len(ordered)
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, size + 1) - size - 1) @ ordered / (size * total))
