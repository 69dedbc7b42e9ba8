"""How many pixels of which class are in which training image, counted once and kept.

Shapes: N = images, P = pairs of an image and a class that occurs in it, K = classes.
"""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cvpods_ext.config.segmentation import SegmentationData
from cvpods_ext.data import segmentation
from cvpods_ext.data.annotations.cache import cache_folder
from cvpods_ext.data.segmentation import IGNORE, LabelledImages
from cvpods_ext.data.statistics import Pairs
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import atomic_path
from cvpods_ext.runtime.progress import track

logger = logging.getLogger(__name__)

FORMAT = 1  # of the cache


def pairs(dataset: LabelledImages, positions: np.ndarray | None = None) -> Pairs:
    """Which class occurs in which of the images at the ascending `positions` (all if None); instances are pixels.

    The first call reads every label map, on all cores, and keeps the counts beside the data.
    """
    image, label, pixels = _counted(dataset)
    num_images = len(dataset)
    if positions is not None:
        renumbered = np.full(num_images, -1)
        renumbered[positions] = np.arange(len(positions))
        image, num_images = renumbered[image], len(positions)
        image, label, pixels = (column[image >= 0] for column in (image, label, pixels))
    return Pairs(image, label, pixels, num_images, dataset.num_classes)


def pixel_counts(data: SegmentationData, start: Path | str) -> np.ndarray:
    """(K,) float64 pixels of each class in the training set, for losses that weigh classes.

    From the class list where it states the shares (per million pixels), else counted. DataError for a class without
    pixels, which cannot be weighted.
    """
    stated = _stated_shares(data, start)
    counts = pairs(segmentation.load(data.train, start)).counts("instance") if stated is None else 1e6 * stated
    if (counts <= 0).any():
        names = [each.name for each in segmentation.load(data.train, start).classes]
        absent = [name for name, count in zip(names, counts, strict=True) if count <= 0]
        raise DataError(
            f"{len(absent)} of {len(counts)} classes have no training pixel ({', '.join(absent[:8])}), so they cannot "
            "be weighted; add images or remove the classes"
        )
    return counts.astype(np.float64)


def frequency_groups(data: SegmentationData, start: Path | str, rare_below: float, frequent_from: float) -> np.ndarray:
    """(K,) of "r", "c", "f" by the share of the labelled training pixels."""
    shares = pixel_shares(data, start)
    return np.where(shares < rare_below, "r", np.where(shares < frequent_from, "c", "f"))


def pixel_shares(data: SegmentationData, start: Path | str) -> np.ndarray:
    """(K,) shares of the labelled training pixels, from the class list where it states them, else counted."""
    stated = _stated_shares(data, start)
    if stated is not None:
        return stated
    counts = pairs(segmentation.load(data.train, start)).counts("instance")
    return counts / max(counts.sum(), 1)


def _stated_shares(data: SegmentationData, start: Path | str) -> np.ndarray | None:
    """(K,) as a known data set's class list states them; None for data of one's own, which is counted."""
    if not isinstance(data.train, str):
        return None
    classes = segmentation.read_classes(f"{segmentation.known(data.train).classes}.csv")
    return np.array([each.pixel_share for each in classes])


def _counted(dataset: LabelledImages) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P,) positions of images, (P,) labels, (P,) pixels; cached for as long as no label map changes."""
    path = cache_folder(dataset.labels) / f"{dataset.labels.name}-{_key(dataset)[:16]}.pixels.npz"
    try:
        with np.load(path) as kept:
            return kept["image"], kept["label"], kept["pixels"]
    except (OSError, ValueError, KeyError, EOFError):
        logger.info("counting the pixels of %s once", dataset.labels)

    def count(position: int) -> np.ndarray:
        return np.bincount(dataset.read_labels(position).ravel(), minlength=IGNORE + 1)[: dataset.num_classes]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        counted = track(threads.map(count, range(len(dataset))), f"counting {dataset.name}", total=len(dataset))
        rows = [(np.flatnonzero(row), row[row > 0]) for row in counted]
    image = np.repeat(np.arange(len(rows)), [len(labels) for labels, _ in rows])
    label, pixels = (np.concatenate([row[i] for row in rows]) for i in (0, 1))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, image=image, label=label, pixels=pixels)
    return image, label, pixels


def _key(dataset: LabelledImages) -> str:
    """Digest of the names, sizes and times of all label maps and of what their values mean."""
    digest = hashlib.sha256(f"{FORMAT} {dataset.num_classes} {dataset.reduce_zero_label}".encode())
    for position in range(len(dataset)):
        status = dataset.label_path(position).stat()
        digest.update(f"{dataset.stem(position)}\0{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
