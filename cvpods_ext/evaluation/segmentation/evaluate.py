"""From label maps and predicted ones to metrics, all images side by side in threads.

Shapes: K = classes.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.data.segmentation import LabelledImages
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.segmentation.counts import Areas, ImageCounts, count
from cvpods_ext.evaluation.segmentation.label_maps import LabelMapFolder
from cvpods_ext.evaluation.segmentation.metrics import intervals, iou_and_accuracy, values
from cvpods_ext.runtime.files import atomic_path
from cvpods_ext.runtime.progress import track
from cvpods_ext.runtime.text import csv_cell

logger = logging.getLogger(__name__)

BOUNDARY = "boundary"


@dataclass(frozen=True)
class Counted:
    """What was counted over all predicted images: confusion (K, K), rows the ground truth, and areas by family."""

    image_ids: list[int]
    confusion: np.ndarray
    areas: dict[str, Areas]


def count_all(dataset: LabelledImages, maps: LabelMapFolder, families: Sequence[str]) -> Counted:
    """Compare every predicted image with its ground truth; DataError for files that cannot be compared."""
    image_ids = sorted(maps.completed())
    if not image_ids:
        raise DataError(f"{maps.folder} holds no predicted label map of {dataset.name}; run pods_test")
    boundary = BOUNDARY in families

    def compare(image_id: int) -> ImageCounts:
        truth = dataset.read_labels(image_id - 1)
        predicted = maps.read(image_id, (truth.shape[0], truth.shape[1]), dataset.num_classes)
        return count(truth, predicted, dataset.num_classes, boundary=boundary)

    confusion = np.zeros((dataset.num_classes,) * 2, np.int64)
    areas, boundary_areas = [], []
    for counts in track(_in_threads(compare, image_ids), "evaluating", total=len(image_ids)):
        confusion += counts.confusion
        areas.append(counts.areas)
        boundary_areas.append(counts.boundary)
    gathered = {"sem_seg": Areas.gather(areas, dataset.num_classes)}
    if boundary:
        gathered[BOUNDARY] = Areas.gather(boundary_areas, dataset.num_classes)
    return Counted(image_ids, confusion, gathered)


def _in_threads(compare, image_ids: Sequence[int]) -> Iterator[ImageCounts]:
    """In order, a few at a time, since an image's confusion matrix is larger than its areas."""
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(image_ids), 8 * threads):
            yield from pool.map(compare, image_ids[start : start + 8 * threads])


def evaluate(
    dataset: LabelledImages,
    maps: LabelMapFolder,
    families: Sequence[str],
    groups: np.ndarray,
    resamples: int = 1000,
) -> tuple[dict[str, dict[str, float | None]], dict[str, Any]]:
    """Metrics in percent by family, and what they hold under: images, classes of each group (K,), 95 % intervals.

    Images that are not predicted are left out and counted in the settings.
    """
    counted = count_all(dataset, maps, families)
    settings: dict[str, Any] = {
        "images": len(counted.image_ids),
        "classes_by_frequency": {group: int((groups == group).sum()) for group in "rcf"},
    }
    if missing := len(dataset) - len(counted.image_ids):
        settings["images_without_predictions"] = missing
        logger.warning("%d of %d images of %s are not predicted and left out", missing, len(dataset), dataset.name)
    metrics = {family: values(family, counted.areas[family], groups) for family in families}
    if resamples:
        settings["intervals"] = {
            family: intervals(family, counted.areas[family], groups, resamples=resamples) for family in families
        }
    write_per_class(maps.folder / "per_class.csv", dataset, counted, groups)
    return metrics, settings


def write_per_class(path: Path, dataset: LabelledImages, counted: Counted, groups: np.ndarray) -> None:
    """A CSV with one line a class: its group, IoU and accuracy in percent, pixels, and what it is mistaken for most."""
    iou, accuracy = iou_and_accuracy(counted.areas["sem_seg"].totals)
    mistaken = counted.confusion * (1 - np.eye(dataset.num_classes, dtype=np.int64))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "name", "frequency", "IoU", "Acc", "pixels", "mistaken_for", "mistaken_pixels"])
        for label, each in enumerate(dataset.classes):
            other = int(mistaken[label].argmax())
            pixels = int(mistaken[label, other])
            numbers = ("" if np.isnan(value) else f"{value:.4f}" for value in (iou[label], accuracy[label]))
            name = dataset.classes[other].name if pixels else ""
            labelled = int(counted.confusion[label].sum())
            writer.writerow([label, csv_cell(each.name), groups[label], *numbers, labelled, csv_cell(name), pixels])
