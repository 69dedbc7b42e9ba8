"""Do scores mean what they say? Reliability and expected calibration error per frequency group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.protocol import GROUPS


@dataclass(frozen=True)
class Reliability:
    """Per bin of the score: edges (bins + 1,), `count` of evaluated detections, their mean `score` and `precision`
    (NaN in an empty bin). `error` is the expected calibration error, the mean over detections of |score - precision|
    of their bin, in [0, 1]; None without detections.
    """

    edges: np.ndarray
    count: np.ndarray
    score: np.ndarray
    precision: np.ndarray
    error: float | None


def calibration(table: MatchTable, bins: int = 20, threshold: int = 0) -> dict[str, Reliability]:
    """Reliability of "all" and each group at an IoU threshold, 0 for 0.5 up to 9 for 0.95.

    Only detections that are right or wrong by the protocol count: in a federated set the others are unknown.
    """
    evaluated = table.evaluated
    bit = np.uint64(threshold)
    hit = ((evaluated.hits >> bit) & np.uint64(1)).astype(bool)
    miss = ((evaluated.misses >> bit) & np.uint64(1)).astype(bool)
    group = table.frequency[evaluated.category]
    chosen = {"all": hit | miss, **{name: (hit | miss) & (group == k) for k, name in enumerate(GROUPS)}}
    return {name: reliability(evaluated.score[rows], hit[rows], bins) for name, rows in chosen.items()}


def reliability(scores: np.ndarray, right: np.ndarray, bins: int) -> Reliability:
    """(N,) scores in [0, 1] and (N,) bool -> bins of equal width."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    at = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    count = np.bincount(at, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    mean_score = np.bincount(at, weights=scores, minlength=bins) / filled
    precision = np.bincount(at, weights=right, minlength=bins) / filled
    error = float(np.nansum(count * np.abs(mean_score - precision)) / count.sum()) if count.sum() else None
    return Reliability(edges, count, mean_score, precision, error)
