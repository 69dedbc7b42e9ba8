"""One row per category: its AP and AR, how much they rest on, and its frequency group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.precision_recall import counted_objects, curves
from cvpods_ext.evaluation.detection.protocol import GROUPS, Curves
from cvpods_ext.runtime.files import atomic_path

AT_HALF = np.uint64(1)  # bit of IoU 0.5 over all areas


def category_aps(precision: np.ndarray) -> np.ndarray:
    """(T, R, K, A) precision -> (K,) AP in percent over all areas, NaN without annotations."""
    values = precision[..., 0]
    return np.where(values[0, 0] < 0, np.nan, 100.0 * values.mean(axis=(0, 1)))


def per_category(table: MatchTable, given: Curves | None = None) -> pa.Table:
    """Columns id, name, frequency, AP, AP50, AP75, AR (percent, null without annotations), objects, images,
    detections (evaluated), true_positives and false_positives at IoU 0.5; in the order of category ids.
    """
    found = given or curves(table.evaluated, table.objects, table.num_categories)
    count = table.num_categories
    annotated = counted_objects(table.objects, count)[:, 0]
    counts = (table.objects.counted & AT_HALF) > 0
    pairs = np.unique(table.objects.image[counts].astype(np.int64) * count + table.objects.category[counts])
    evaluated = table.evaluated
    hit, miss = (evaluated.hits & AT_HALF) > 0, (evaluated.misses & AT_HALF) > 0

    def percent(values: np.ndarray) -> pa.Array:
        return pa.array(100.0 * values, mask=annotated == 0)

    precision = found.precision[..., 0]
    return pa.table(
        {
            "id": table.category_ids,
            "name": table.category_names,
            "frequency": [GROUPS[group] for group in table.frequency],
            "AP": percent(precision.mean(axis=(0, 1))),
            "AP50": percent(precision[0].mean(axis=0)),
            "AP75": percent(precision[5].mean(axis=0)),
            "AR": percent(found.recall[..., 0].mean(axis=0)),
            "objects": annotated,
            "images": np.bincount(pairs % count, minlength=count),
            "detections": np.bincount(evaluated.category[hit | miss], minlength=count),
            "true_positives": np.bincount(evaluated.category[hit], minlength=count),
            "false_positives": np.bincount(evaluated.category[miss], minlength=count),
        }
    )


def write(categories: pa.Table, path: Path) -> None:
    """Write as .csv or .parquet, by the name of the file."""
    writers = {".csv": pyarrow.csv.write_csv, ".parquet": pq.write_table}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: a table of categories is written as .csv or .parquet.")
    with atomic_path(path) as temporary:
        writers[path.suffix](categories, str(temporary))
