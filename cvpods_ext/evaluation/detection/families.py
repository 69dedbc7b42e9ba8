"""From what is matched to the metrics of a family: one function for each kind of family in the metric table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cvpods_ext.evaluation.detection.calibration import calibration
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.large_vocabulary import fixed_metrics, pooled_metrics
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.metrics import RECALL_LIMITS
from cvpods_ext.evaluation.detection.precision_recall import curves, recall_among
from cvpods_ext.evaluation.detection.protocol import (
    GROUPS,
    Metrics,
    coco_recalls,
    iou_type,
    mean_where_annotated,
    summarise,
)
from cvpods_ext.evaluation.detection.selection import (
    FIXED_LIMIT,
    Limit,
    best_per_category,
    limit_of,
    select_annotations,
)
from cvpods_ext.evaluation.detection.shards import shard_files
from cvpods_ext.evaluation.detection.tide import classify, costs


@dataclass(frozen=True)
class Source:
    """Detections in `folder` with the annotations `gt`; `max_detections` is LVIS's limit per image."""

    gt: GroundTruth
    folder: Path
    max_detections: int
    workers: int | None = None

    def table(self, kind: str, limit: Limit | None = None) -> MatchTable:
        """The match table of an IoU type; `limit` is the official one of the annotations' protocol if None."""
        limit = limit or limit_of(self.gt.federated, self.max_detections)
        return match_table(self.gt, self.folder, kind, limit, self.workers)


def compute(family: str, source: Source) -> Metrics:
    """The metrics of a family by name, in percent; None where a group has no ground truth."""
    kind = iou_type(family)
    return _COMPUTED_BY[family.removeprefix(kind)](source, kind)


def metrics_of(table: MatchTable, federated: bool) -> Metrics:
    """The numbers of the official protocol: LVIS's thirteen, and two more recalls for COCO."""
    evaluated, objects, num_categories = table.evaluated, table.objects, table.num_categories
    metrics = summarise(curves(evaluated, objects, num_categories), table.frequency)
    if not federated:
        best = (recall_among(evaluated, objects, num_categories, evaluated.rank < limit) for limit in (1, 10))
        metrics |= coco_recalls(*best)
    return metrics


def _official(source: Source, kind: str) -> Metrics:
    return metrics_of(source.table(kind), source.gt.federated)


def _fixed(source: Source, kind: str) -> Metrics:
    return fixed_metrics(source.table(kind, FIXED_LIMIT))


def _pool(source: Source, kind: str) -> Metrics:
    return pooled_metrics(source.table(kind, FIXED_LIMIT))


def _recall(source: Source, kind: str) -> Metrics:
    """Recall by how many detections count: of each image under LVIS's rules, of each image and class under COCO's.

    A detection's match depends on better ones only, so one table without a limit holds those of all limits.
    """
    table = source.table(kind, Limit())
    if source.gt.federated:
        rows = [pq.read_table(path, columns=["image_id", "score"]) for path in shard_files(source.folder)]
        image_ids, scores = (np.concatenate([part.column(k).to_numpy() for part in rows]) for k in range(2))
        # the best of each image, as of each category
        counted = {n: best_per_category(image_ids, scores, n)[table.evaluated.row] for n in RECALL_LIMITS}
    else:
        counted = {n: table.evaluated.rank < n for n in RECALL_LIMITS}
    recall = {
        n: recall_among(table.evaluated, table.objects, table.num_categories, best) for n, best in counted.items()
    }
    metrics = {f"AR{n}": mean_where_annotated(values) for n, values in recall.items()}
    every = np.ones(len(table.evaluated), dtype=bool)
    unlimited = recall_among(table.evaluated, table.objects, table.num_categories, every)
    metrics["AR"] = mean_where_annotated(unlimited)
    return metrics | {
        f"AR{name}": mean_where_annotated(unlimited[:, table.frequency == k]) for k, name in enumerate(GROUPS)
    }


def _calibration(source: Source, kind: str) -> Metrics:
    errors = {name: found.error for name, found in calibration(source.table(kind)).items()}
    return {
        f"ECE{'' if name == 'all' else name}": None if error is None else 100.0 * error
        for name, error in errors.items()
    }


def _errors(source: Source, kind: str) -> Metrics:
    table = source.table(kind)
    lost = costs(table, classify(select_annotations(source.gt, kind), source.folder, table, kind))
    return {
        name if group == "all" else f"{name}_{group}": value
        for group in ("all", *GROUPS)
        for name, values in lost.items()
        for value in (values[group],)
    }


_COMPUTED_BY: dict[str, Callable[[Source, str], Metrics]] = {
    "": _official,
    "_fixed": _fixed,
    "_pool": _pool,
    "_recall": _recall,
    "_calibration": _calibration,
    "_errors": _errors,
}
