"""From the scores of a test to metrics, their intervals, and a table of all classes."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.data.classification import LabelledPhotos
from cvpods_ext.data.statistics import FrequencyGroups
from cvpods_ext.evaluation.classification import scores
from cvpods_ext.evaluation.classification.metrics import GROUPS, class_totals, intervals, resampled, values
from cvpods_ext.runtime.files import atomic_path
from cvpods_ext.runtime.text import csv_cell

logger = logging.getLogger(__name__)


def evaluate(
    dataset: LabelledPhotos, folder: Path, groups: FrequencyGroups, training_counts: np.ndarray, resamples: int = 1000
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Metrics in percent, and what they hold under: images, classes of each group, 95 % intervals.

    `groups` and `training_counts` (K,) are in the order of the data set's classes. Images that are not predicted are
    left out and counted in the settings. Writes per_class.csv into `folder`.
    """
    num_classes = len(dataset.classes)
    found = scores.read(folder, len(dataset), num_classes)
    truth = dataset.labels[found.image_ids - 1]
    ranks = found.ranks(truth)
    totals = class_totals(truth, ranks, num_classes)
    settings: dict[str, Any] = {
        "images": len(truth),
        "classes_by_frequency": {group: int((groups.groups == group).sum()) for group in GROUPS},
        "frequency_by": groups.origin,
    }
    if untested := int((totals[0] == 0).sum()):
        settings["classes_without_test_images"] = untested
    if again := dataset.listed_again():
        settings["images_listed_again"] = again
        logger.warning("%d entries of %s name a file again, and each counts as an image", again, dataset.name)
    if missing := len(dataset) - len(truth):
        settings["images_without_predictions"] = missing
        logger.warning("%d of %d images of %s are not predicted and left out", missing, len(dataset), dataset.name)
    if resamples:
        settings["intervals"] = intervals(totals, resampled(truth, ranks, num_classes, resamples), groups.groups)
    mistaken = scores.mistaken_most(truth, found.labels[:, 0], num_classes)
    _write_per_class(folder / "per_class.csv", dataset, totals, groups.groups, training_counts, mistaken)
    return values(totals, groups.groups), settings


def _write_per_class(
    path: Path,
    dataset: LabelledPhotos,
    totals: np.ndarray,
    groups: np.ndarray,
    training_counts: np.ndarray,
    mistaken: tuple[np.ndarray, np.ndarray],
) -> None:
    """A CSV with one line a class: its group and images, accuracies in percent, what it is mistaken for most."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "label",
                "key",
                "name",
                "group",
                "train_images",
                "images",
                "top1",
                "top5",
                "mistaken_for",
                "mistaken_images",
            ]
        )
        for label, each in enumerate(dataset.classes):
            images, *right = totals[:, label].tolist()
            accuracies = [f"{100 * count / images:.4f}" if images else "" for count in right]
            other, times = (int(column[label]) for column in mistaken)
            name = dataset.classes[other].name if times else ""
            facts = [label, csv_cell(each.key), csv_cell(each.name), groups[label], int(training_counts[label]), images]
            writer.writerow([*facts, *accuracies, csv_cell(name), times])
