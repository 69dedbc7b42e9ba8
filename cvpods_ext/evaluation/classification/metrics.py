"""The metric table of image classification, and its numbers from the rank of every image's class.

Shapes: I = images, K = classes, B = resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvpods_ext.evaluation.intervals import PERCENT, interval
from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable
from cvpods_ext.runtime.words import counted

GROUPS = ("many", "medium", "few")  # by training images, Liu et al., https://arxiv.org/abs/1904.05160
FAMILY = "classification"


def _groups_remark(settings: Mapping[str, Any]) -> str:
    """What the groups are made by, their limits, and how many classes no mean has."""
    if "frequency_by" not in settings:
        return ""
    untested = settings.get("classes_without_test_images")
    left_out = f"; {counted(untested, 'class', 'classes')} without a test image left out" if untested else ""
    return f"groups: {settings['frequency_by']}{left_out}"


METRICS = MetricTable(
    observations=("intervals",),
    remark=_groups_remark,
    families=(
        Family(
            name=FAMILY,
            title="image classification",
            metrics=(
                Metric(name="top1", description="images whose class has the highest score"),
                Metric(name="top5", description="images whose class is among the five highest scores"),
                Metric(name="mean", description="top1 of a class, mean over classes", official=False),
                *(
                    Metric(name=group, description=f"top1 of a class, mean over {group}-shot classes", official=False)
                    for group in GROUPS
                ),
            ),
            headline="top1",
            columns=(("top1", "top5", "mean", *GROUPS),),
        ),
    ),
)


def class_totals(labels: np.ndarray, ranks: np.ndarray, num_classes: int) -> np.ndarray:
    """(3, K) int64 images of each class: all, with `ranks` (I,) 0 (top 1), with ranks below 5 (top 5)."""
    return np.stack([np.bincount(labels[ranks < limit], minlength=num_classes) for limit in (np.inf, 1, 5)])


def summarise(totals: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """All metrics in percent, each (...,), from (3, ..., K) `class_totals` and (K,) of `GROUPS`.

    Means over classes skip those without a test image; the mean of a group without any is NaN.
    """
    images, first, among_five = totals.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing is NaN
        accuracy = 100 * first / images
        return {
            "top1": 100 * first.sum(axis=-1) / images.sum(axis=-1),
            "top5": 100 * among_five.sum(axis=-1) / images.sum(axis=-1),
            "mean": np.nanmean(accuracy, axis=-1),
            **{group: np.nanmean(accuracy[..., groups == group], axis=-1) for group in GROUPS},
        }


def values(totals: np.ndarray, groups: np.ndarray) -> dict[str, float | None]:
    """The metrics in percent, None where there is nothing to measure."""
    return {name: float(value) if np.isfinite(value) else None for name, value in summarise(totals, groups).items()}


def resampled(labels: np.ndarray, ranks: np.ndarray, num_classes: int, resamples: int, seed: int = 0) -> np.ndarray:
    """`class_totals` (3, B, K) of the images (I,), drawn with replacement B times; the same draws for a seed."""
    rng = np.random.default_rng(seed)
    kind = np.where(ranks < 1, 2, np.where(ranks < 5, 1, 0))  # 3 K kinds of images tell everything about a draw
    codes = labels * 3 + kind
    counts = np.empty((resamples, num_classes, 3), np.int64)
    for row in counts:
        drawn = codes[rng.integers(len(codes), size=len(codes))]
        row[:] = np.bincount(drawn, minlength=3 * num_classes).reshape(num_classes, 3)
    return np.stack((counts.sum(axis=2), counts[..., 2], counts[..., 1] + counts[..., 2]))


def intervals(totals: np.ndarray, drawn: np.ndarray, groups: np.ndarray) -> dict[str, tuple[float, float] | None]:
    """95 % intervals in percent of the metrics of (3, K) totals, from (3, B, K) resampled ones; None if unmeasured."""
    measured, found = summarise(totals, groups), summarise(drawn, groups)
    known = {name: interval(np.atleast_1d(value), found[name], bounds=PERCENT) for name, value in measured.items()}
    return {name: None if one is None else (one.low, one.high) for name, one in known.items()}
