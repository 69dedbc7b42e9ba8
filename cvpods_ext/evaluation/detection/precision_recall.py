"""Precision and recall of every category from the match table, equal to the official accumulation to the last bit.

Precision at recall r is the best precision at any recall of at least r. Precision only rises at a true positive, so
everything is decided at true positives, of which there are at most as many as annotations.
"""

from __future__ import annotations

import numpy as np

from cvpods_ext.evaluation.detection.match_table import Evaluated, Objects
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, RECALL_POINTS, Criteria, Curves

R = len(RECALL_POINTS)


def counted_objects(objects: Objects, num_categories: int, criteria: Criteria = OFFICIAL) -> np.ndarray:
    """(K, A) how many annotations count in each area range."""
    counts = [
        np.bincount(objects.category[(objects.counted & bits) > 0], minlength=num_categories)
        for bits in criteria.area_bits
    ]
    return np.stack(counts, axis=1)


def curves(
    evaluated: Evaluated,
    objects: Objects,
    num_categories: int,
    criteria: Criteria = OFFICIAL,
    *,
    thresholds: int | None = None,
    areas: int | None = None,
) -> Curves:
    """Precision (T, R, K, A) and recall (T, K, A); -1 where no annotation counts.

    `criteria` are those that the bits stand for; only the first `thresholds` and `areas` of them if given.
    """
    thresholds, areas = thresholds or len(criteria.thresholds), areas or len(criteria.areas)
    counts = counted_objects(objects, num_categories, criteria)
    precision = np.full((thresholds, R, num_categories, areas), -1.0)
    recall = np.full((thresholds, num_categories, areas), -1.0)
    starts = np.searchsorted(evaluated.category, np.arange(num_categories + 1))
    for area in range(areas):
        present = np.flatnonzero(counts[:, area])
        needed = needed_hits(counts[present, area])
        for threshold in range(thresholds):
            bit = np.uint64(area * len(criteria.thresholds) + threshold)
            hit = np.flatnonzero((evaluated.hits >> bit) & np.uint64(1))
            errors = np.cumsum((evaluated.misses >> bit) & np.uint64(1), dtype=np.int64)
            at, reached = _precision(hit, errors, starts, present, needed)
            precision[threshold, :, present, area] = at
            recall[threshold, present, area] = reached / counts[present, area]
    return Curves(precision, recall)


def needed_hits(counts: np.ndarray) -> np.ndarray:
    """(K,) -> (K, R) the fewest true positives whose recall, as a float64 quotient, reaches each recall point."""
    counts = counts[:, None].astype(np.float64)
    needed = np.ceil(RECALL_POINTS * counts)
    needed -= (needed - 1) / counts >= RECALL_POINTS  # the product may have been rounded up ...
    needed += needed / counts < RECALL_POINTS  # ... or down
    return np.maximum(needed, 1).astype(np.int64)


def _precision(
    hit: np.ndarray, errors: np.ndarray, starts: np.ndarray, present: np.ndarray, needed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(K, R) precision at the recall points and (K,) true positives of the `present` categories.

    hit: rows of true positives; errors (N,): false positives up to each row; starts: first row of each category.
    """
    bounds = np.searchsorted(hit, starts)
    total = np.diff(bounds)
    category = np.repeat(np.arange(len(total)), total)
    right = np.arange(1, len(hit) + 1) - bounds[category]
    before = np.concatenate(([0], errors))[starts[:-1]]
    wrong = errors[hit] - before[category]
    precision = right / (wrong + right + np.spacing(1))
    for start, stop in zip(bounds[:-1][total > 1], bounds[1:][total > 1], strict=True):
        backwards = precision[start:stop][::-1]
        np.maximum.accumulate(backwards, out=backwards)
    reached = total[present]
    where = bounds[:-1][present][:, None] + needed - 1
    padded = np.append(precision, 0.0)
    return padded[np.where(needed <= reached[:, None], where, len(precision))], reached


def recall_among(evaluated: Evaluated, objects: Objects, num_categories: int, counted: np.ndarray) -> np.ndarray:
    """(T, K) official recall over all areas if only the `counted` (N,) detections count; -1 as in `curves`."""
    counts = counted_objects(objects, num_categories)[:, 0]
    recall = np.full((len(OFFICIAL.thresholds), num_categories), -1.0)
    for threshold in range(len(recall)):
        hit = ((evaluated.hits >> np.uint64(threshold)) & np.uint64(1)).astype(bool) & counted
        found = np.bincount(evaluated.category[hit], minlength=num_categories)
        recall[threshold] = np.where(counts > 0, found / np.maximum(counts, 1), -1.0)
    return recall
