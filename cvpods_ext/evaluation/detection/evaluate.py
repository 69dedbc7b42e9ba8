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

from cvpods_ext.data.statistics import FrequencyGroups
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.detection import backend_hotcoco, backend_official, detections, ground_truth
from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.families import Source, compute
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.large_vocabulary import cut_per_image
from cvpods_ext.evaluation.detection.metrics import METRICS
from cvpods_ext.evaluation.detection.protocol import Curves, Metrics, coco_recalls, iou_type, needs_masks, summarise
from cvpods_ext.evaluation.detection.selection import COCO_LIMIT, Limit, limit_of
from cvpods_ext.evaluation.detection.shards import completed_image_ids, shard_files
from cvpods_ext.evaluation.metric_table import nearest
from cvpods_ext.runtime.words import counted

Evaluator = Literal["own", "hotcoco", "lvis"]
_SHARDS_AT_ONCE = 8  # bounds the memory of the check on machines with many cores


class Evaluation(dict[str, Metrics]):
    """Metrics by family; `settings` says under which rules they were computed and what had to be derived."""

    def __init__(self, metrics: dict[str, Metrics], settings: dict[str, Any]) -> None:
        super().__init__(metrics)
        self.settings = settings


def evaluate(
    annotations_json: Path,
    folder: Path,
    families: Sequence[str] = ("bbox", "segm"),
    max_detections: int = 300,
    evaluator: Evaluator = "own",
    frequency: FrequencyGroups | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Metrics in percent for every family, None where a group has no ground truth.

    `max_detections` is LVIS's limit per image over all categories; COCO's protocol fixes 100 per image and category.
    `evaluator="hotcoco"` asks another fast implementation instead, `"lvis"` the official packages (minutes and
    gigabytes); the numbers are the same. `frequency` has the groups of a file that does not state them.
    `workers` as in `matching_pipeline.match_table`. Raises ConfigError as `check_families`, DataError for wrong files.
    """
    check_families(families, evaluator)
    gt = ground_truth.load(annotations_json, masks=any(map(needs_masks, families)), frequency=frequency)
    ground_truth.tell(gt)
    limit = limit_of(gt.federated, max_detections)
    settings = {
        "evaluator": "pycocotools" if evaluator == "lvis" and not gt.federated else evaluator,
        "protocol": "lvis" if gt.federated else "coco",
        "max_detections": max_detections if gt.federated else COCO_LIMIT.per_cell,
        "images": len(gt.image_ids),
        **gt.notes,
        **check(gt, folder),
        **_cut_per_image(families, folder),
    }
    source = Source(gt, folder, max_detections, workers)
    metrics = {
        family: compute(family, source) if evaluator == "own" else _by_other(gt, folder, family, limit, evaluator)
        for family in families
    }
    return Evaluation(metrics, settings)


def check_families(families: Sequence[str], evaluator: Evaluator) -> None:
    """ConfigError for a family that the metric table does not have, or that the evaluator cannot compute."""
    for name in families:
        if name not in METRICS.names:
            raise ConfigError(f"test.metrics: unknown family {name!r}; {nearest(name, METRICS.names)}")
        if evaluator != "own" and not METRICS.family(name).official:
            raise ConfigError(
                f"test.evaluator={evaluator!r} does not know {METRICS.family(name).title}; "
                f"use 'own', or leave {name!r} out of test.metrics"
            )


def _cut_per_image(families: Sequence[str], folder: Path) -> dict[str, Any]:
    """The setting to record if metrics without a limit per image are asked of detections that were cut per image."""
    if not any(name.removeprefix(iou_type(name)) in ("_fixed", "_pool") for name in families):
        return {}
    cut_at = cut_per_image(folder)
    if cut_at is None:
        return {}
    logging.getLogger(__name__).warning(
        "%s seems to have been cut at %d detections per image, so AP_fixed and AP_pool are lower bounds; "
        "test again with a larger model.detections_per_image",
        *(folder, cut_at),
    )
    return {"detections_cut_per_image": cut_at}


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


def check(gt: GroundTruth, folder: Path) -> dict[str, Any]:
    """Refuse detections that belong to another annotation file; report what is merely suspicious.

    Returns settings to record: images without detections on disk, boxes that leave their image.
    """
    completed = completed_image_ids(folder)
    with ThreadPoolExecutor(min(_SHARDS_AT_ONCE, len(os.sched_getaffinity(0)))) as pool:
        outside = sum(pool.map(partial(_check_shard, gt), shard_files(folder)))
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
    _require_known("image id", table.image_ids, gt.image_ids, table, gt.path)
    _require_known("category id", table.category_ids, gt.category_ids, table, gt.path)
    strange = table.completed[~np.isin(table.completed, gt.image_ids)]
    if len(strange):
        raise DataError(
            f"{table.origin} completes {counted(len(strange), 'image')} that {gt.path} does not define, such as "
            f"{strange[:5].tolist()}. Was it made for another split?"
        )
    limits = gt.image_sizes[np.searchsorted(gt.image_ids, table.image_ids)][:, ::-1] + 1.0  # a pixel for rounding
    corners = table.boxes[:, :2] + table.boxes[:, 2:]
    return int(((table.boxes[:, :2] < -1.0) | (corners > limits)).any(axis=1).sum())


def _require_known(kind: str, found: np.ndarray, known: np.ndarray, table: DetectionTable, annotations: Path) -> None:
    strange = np.flatnonzero(~np.isin(found, known))
    if len(strange):
        ids = np.unique(found[strange])
        first = table.spot(int(strange[0]))
        raise DataError(
            f"{table.origin} has {counted(len(ids), kind)} that {annotations} does not define, such as "
            f"{ids[:5].tolist()} (first in {first}). Are they of another split, or labels instead of ids?"
        )
