"""From an annotation file and a folder of shards to metrics, by LVIS's or COCO's rules as the file demands."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation import coco, detections, fast, ground_truth, lvis, official
from cvpods_ext.evaluation.detections import DetectionTable
from cvpods_ext.evaluation.ground_truth import GroundTruth
from cvpods_ext.evaluation.protocol import Curves, Metrics, summarise

TASKS = ("bbox", "segm")


class Evaluation(dict[str, Metrics]):
    """Metrics by task; `settings` says under which rules they were computed and what had to be derived."""

    def __init__(self, metrics: dict[str, Metrics], settings: dict[str, Any]) -> None:
        super().__init__(metrics)
        self.settings = settings


def evaluate(
    annotations_json: Path,
    folder: Path,
    tasks: Sequence[str] = TASKS,
    max_detections: int = 300,
    evaluator: Literal["hotcoco", "lvis"] = "hotcoco",
    train_image_counts: Sequence[int] | None = None,
) -> Evaluation:
    """Metrics in percent for every task, None where a group has no ground truth.

    `max_detections` is LVIS's limit per image over all categories; COCO's protocol fixes 100 per image and category.
    `evaluator="lvis"` asks the official packages instead (minutes and gigabytes, the same numbers).
    `train_image_counts` (K,) give the frequency groups of a file that has none. Wrong files are a DataError.
    """
    if unknown := [task for task in tasks if task not in TASKS]:
        raise ConfigError(f"test.tasks has {unknown}; known tasks are {list(TASKS)}.")
    gt = ground_truth.load(annotations_json, masks="segm" in tasks, train_image_counts=train_image_counts)
    table = detections.read(folder, masks="segm" in tasks)
    settings = {
        "evaluator": evaluator if gt.federated or evaluator == "hotcoco" else "pycocotools",
        "protocol": "lvis" if gt.federated else "coco",
        "max_detections": max_detections if gt.federated else coco.MAX_DETECTIONS,
        "images": len(gt.image_ids),
        **gt.notes,
        **check(gt, table),
    }
    metrics = {task: evaluate_task(gt, table, task, max_detections, evaluator) for task in tasks}
    return Evaluation(metrics, settings)


def evaluate_task(gt: GroundTruth, table: DetectionTable, task: str, max_detections: int, evaluator: str) -> Metrics:
    """One task of what is in memory already."""
    if task == "bbox" and not np.isfinite(gt.boxes).all():
        image_id = gt.image_ids[gt.images[~np.isfinite(gt.boxes).all(axis=1)][0]]
        raise DataError(f"{gt.path}: an annotation on image {image_id} has no finite bbox.")
    if not gt.federated:
        return coco.metrics(gt, table, task, official_evaluator=evaluator == "lvis")
    if evaluator == "lvis":
        return summarise(Curves(**official.lvis_accumulated(gt, table, task, max_detections)), gt.frequency)
    truth = lvis.select_ground_truth(gt)
    found, areas = lvis.select_detections(truth, table, task, max_detections)
    result = fast.accumulated(truth, found, areas, task, federated=True)
    return summarise(Curves(**{name: values[..., 0] for name, values in result.items()}), gt.frequency)


def check(gt: GroundTruth, table: DetectionTable) -> dict[str, Any]:
    """Refuse detections that belong to another annotation file; report what is merely suspicious.

    Returns settings to record: images without detections on disk, boxes that leave their image.
    """
    for kind, found, known in (
        ("image", np.concatenate((table.image_ids, table.completed)), gt.image_ids),
        ("category", table.category_ids, gt.category_ids),
    ):
        strange = np.setdiff1d(found, known)
        if len(strange):
            raise DataError(
                f"{table.source} has {len(strange)} {kind} ids that {gt.path} does not define, such as "
                f"{strange[:5].tolist()}. Were they made for another split, or are they labels instead of ids?"
            )
    notes: dict[str, Any] = {}
    if missing := len(gt.image_ids) - len(table.completed):
        notes["images_without_detections"] = missing
        logging.getLogger(__name__).warning(
            "%d of %d images have no detections in %s: their objects count as missed",
            *(missing, len(gt.image_ids), table.source),
        )
    images = np.searchsorted(gt.image_ids, table.image_ids)
    limits = gt.image_sizes[images][:, ::-1] + 1.0  # one pixel for rounding
    corners = table.boxes[:, :2] + table.boxes[:, 2:]
    if outside := int(((table.boxes[:, :2] < -1.0) | (corners > limits)).any(axis=1).sum()):
        notes["boxes_outside_their_image"] = outside
    return notes
