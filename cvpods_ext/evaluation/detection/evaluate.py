"""From an annotation file and a folder of shards to metrics, by LVIS's or COCO's rules as the file demands."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.detection import backend_hotcoco, backend_official, detections, ground_truth
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.precision_recall import curves, recall_of_best
from cvpods_ext.evaluation.detection.protocol import TASKS, Curves, Metrics, coco_recalls, needs_masks, summarise
from cvpods_ext.evaluation.detection.selection import COCO_LIMIT, Limit, limit_of

Evaluator = Literal["own", "hotcoco", "lvis"]
_SHARDS_AT_ONCE = 8  # bounds the memory of the check on machines with many cores


class Evaluation(dict[str, Metrics]):
    """Metrics by task; `settings` says under which rules they were computed and what had to be derived."""

    def __init__(self, metrics: dict[str, Metrics], settings: dict[str, Any]) -> None:
        super().__init__(metrics)
        self.settings = settings


def evaluate(
    annotations_json: Path,
    folder: Path,
    tasks: Sequence[str] = ("bbox", "segm"),
    max_detections: int = 300,
    evaluator: Evaluator = "own",
    train_image_counts: Sequence[int] | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Metrics in percent for every task, None where a group has no ground truth.

    `max_detections` is LVIS's limit per image over all categories; COCO's protocol fixes 100 per image and category.
    `evaluator="hotcoco"` asks another fast implementation instead, `"lvis"` the official packages (minutes and
    gigabytes); the numbers are the same. `train_image_counts` (K,) give the frequency groups of a file that has none.
    `workers` as in `matches.match_table`. Wrong files are a DataError.
    """
    if unknown := [task for task in tasks if task not in TASKS]:
        raise ConfigError(f"test.metrics has {unknown}; known tasks are {list(TASKS)}.")
    if "boundary" in tasks and evaluator != "own":
        raise ConfigError(
            f"test.evaluator={evaluator!r} does not know boundary AP; use 'own' for test.metrics={tasks}."
        )
    gt = ground_truth.load(annotations_json, masks=any(map(needs_masks, tasks)), train_image_counts=train_image_counts)
    if "bbox" in tasks:
        _require_boxes(gt)
    limit = limit_of(gt.federated, max_detections)
    settings = {
        "evaluator": "pycocotools" if evaluator == "lvis" and not gt.federated else evaluator,
        "protocol": "lvis" if gt.federated else "coco",
        "max_detections": max_detections if gt.federated else COCO_LIMIT.per_cell,
        "images": len(gt.image_ids),
        **gt.notes,
        **check(gt, folder),
    }
    metrics = {}
    for task in tasks:
        if evaluator == "own":
            metrics[task] = metrics_of(match_table(gt, folder, task, limit, workers), gt.federated)
        else:
            metrics[task] = _by_other(gt, folder, task, limit, evaluator)
    return Evaluation(metrics, settings)


def metrics_of(table: MatchTable, federated: bool) -> Metrics:
    """The table's numbers: LVIS's thirteen, and two more recalls for COCO."""
    judged, objects, num_categories = table.judged, table.objects, table.num_categories
    metrics = summarise(curves(judged, objects, num_categories), table.frequency)
    if not federated:
        metrics |= coco_recalls(*(recall_of_best(judged, objects, num_categories, limit) for limit in (1, 10)))
    return metrics


def _by_other(gt: GroundTruth, folder: Path, task: str, limit: Limit, evaluator: str) -> Metrics:
    table = detections.read(folder, masks=task == "segm")
    if evaluator == "hotcoco":
        result = backend_hotcoco.accumulated(gt, table, task, limit)
    elif gt.federated:
        assert limit.per_image is not None, "LVIS limits detections per image"
        result = backend_official.lvis_accumulated(gt, table, task, limit.per_image)
    else:
        result = backend_official.coco_accumulated(gt, table, task)
    precision, recall = result["precision"], result["recall"]
    metrics = summarise(Curves(precision[..., -1], recall[..., -1]), gt.frequency)
    if not gt.federated:
        metrics |= coco_recalls(recall[:, :, 0, 0], recall[:, :, 0, 1])
    return metrics


def _require_boxes(gt: GroundTruth) -> None:
    wrong = ~np.isfinite(gt.boxes).all(axis=1)
    if wrong.any():
        image_id = gt.image_ids[gt.images[wrong][0]]
        raise DataError(f"{gt.path}: an annotation on image {image_id} has no finite bbox.")


def check(gt: GroundTruth, folder: Path) -> dict[str, Any]:
    """Refuse detections that belong to another annotation file; report what is merely suspicious.

    Returns settings to record: images without detections on disk, boxes that leave their image.
    """
    completed = detections.completed_image_ids(folder)
    with ThreadPoolExecutor(min(_SHARDS_AT_ONCE, len(os.sched_getaffinity(0)))) as pool:
        outside = sum(pool.map(partial(_check_shard, gt), detections.shard_files(folder)))
    notes: dict[str, Any] = {"boxes_outside_their_image": outside} if outside else {}
    if missing := len(gt.image_ids) - len(completed):
        notes["images_without_detections"] = missing
        logging.getLogger(__name__).warning(
            "%d of %d images have no detections in %s: their objects count as missed",
            *(missing, len(gt.image_ids), folder),
        )
    return notes


def _check_shard(gt: GroundTruth, path: Path) -> int:
    """The number of boxes that leave their image; DataError for ids that the annotations do not define."""
    table = detections.read_shard(path, masks=False)
    _require_known("image", np.concatenate((table.image_ids, table.completed)), gt.image_ids, path, gt.path)
    _require_known("category", table.category_ids, gt.category_ids, path, gt.path)
    limits = gt.image_sizes[np.searchsorted(gt.image_ids, table.image_ids)][:, ::-1] + 1.0  # a pixel for rounding
    corners = table.boxes[:, :2] + table.boxes[:, 2:]
    return int(((table.boxes[:, :2] < -1.0) | (corners > limits)).any(axis=1).sum())


def _require_known(kind: str, found: np.ndarray, known: np.ndarray, shard: Path, annotations_json: Path) -> None:
    strange = found[~np.isin(found, known)]
    if len(strange):
        strange = np.unique(strange)
        raise DataError(
            f"{shard} has {len(strange)} {kind} ids that {annotations_json} does not define, such as "
            f"{strange[:5].tolist()}. Were they made for another split, or are they labels instead of ids?"
        )
