"""AP_fixed and AP_pool of Dave et al., "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details".

LVIS's limit of 300 detections per image lets categories compete for places, so AP rewards keeping rare ones out or in.
AP_fixed limits each category over the whole split instead. AP_pool ranks the detections of all categories together,
so that scores must mean the same across categories.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.detection.protocol import GROUPS, Metrics, mean_where_annotated, summarise
from cvpods_ext.evaluation.detection.shards import shard_files


def fixed_metrics(table: MatchTable) -> Metrics:
    """LVIS's thirteen numbers of a table with `selection.FIXED_LIMIT`."""
    return summarise(curves(table.evaluated, table.objects, table.num_categories), table.frequency)


def cut_per_image(folder: Path) -> int | None:
    """The largest number of detections of an image, if it is at least 100 and several images have exactly that many."""
    counts: Counter[int] = Counter()
    for path in shard_files(folder):
        ids = pq.read_table(path, columns=["image_id"]).column("image_id").to_numpy()
        counts.update(np.unique(ids, return_counts=True)[1].tolist())
    largest = max(counts, default=0)
    return largest if largest >= 100 and counts[largest] > 1 else None


def pooled_metrics(table: MatchTable) -> Metrics:
    """AP AP50 AP75 APr APc APf of a table with `selection.FIXED_LIMIT`.

    Matched within categories as ever, ranked in one list: over all categories, and within each frequency group.
    """
    together = _pooled(table, np.zeros(table.num_categories, dtype=np.int32))
    by_group = _pooled(table, table.frequency.astype(np.int32))
    everything = curves(together.evaluated, together.objects, 1).precision[..., 0]
    groups = curves(by_group.evaluated, by_group.objects, len(GROUPS)).precision[..., 0]
    metrics: Metrics = {
        "AP": mean_where_annotated(everything),
        "AP50": mean_where_annotated(everything[0]),
        "AP75": mean_where_annotated(everything[5]),
    }
    return metrics | {f"AP{name}": mean_where_annotated(groups[..., k]) for k, name in enumerate(GROUPS)}


def _pooled(table: MatchTable, pool_of_category: np.ndarray) -> MatchTable:
    """Each pool becomes one category; ties keep the order of category, image, file."""
    pool = pool_of_category[table.evaluated.category]
    ranked = table.evaluated.take(np.lexsort((-table.evaluated.score, pool)))
    return replace(
        table,
        evaluated=replace(ranked, category=pool_of_category[ranked.category]),
        objects=replace(table.objects, category=pool_of_category[table.objects.category]),
    )
