"""The metric table of semantic segmentation, and its numbers from counted pixels.

Shapes: K = classes, I = images, B = resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvpods_ext.evaluation.intervals import PERCENT, interval
from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable
from cvpods_ext.evaluation.segmentation.counts import Areas

GROUPS = {"r": "rare classes", "c": "common classes", "f": "frequent classes"}  # by pixels in training


def _by_group(what: str) -> tuple[Metric, ...]:
    return tuple(
        Metric(name=f"mIoU{letter}", description=f"{what} over {words}", official=False)
        for letter, words in GROUPS.items()
    )


_COLUMNS = (("mIoU", "mIoUr", "mIoUc", "mIoUf", "mAcc", "aAcc"),)


def _frequency_groups(settings: Mapping[str, Any]) -> str:
    """What the groups are made by, and their limits."""
    if not {"frequency_by", "rare_below", "frequent_from"} <= settings.keys():
        return ""
    return (
        f"frequency groups: {settings['frequency_by']} of a class, rare < {settings['rare_below']:g} <= common < "
        f"{settings['frequent_from']:g} <= frequent"
    )


METRICS = MetricTable(
    observations=("intervals",),
    remark=_frequency_groups,
    families=(
        Family(
            name="sem_seg",
            title="semantic segmentation",
            metrics=(
                Metric(name="mIoU", description="intersection over union, mean over classes"),
                Metric(name="mAcc", description="share of a class's pixels that are right, mean over classes"),
                Metric(name="aAcc", description="share of all pixels that are right"),
                *_by_group("mean IoU"),
            ),
            headline="mIoU",
            columns=_COLUMNS,
        ),
        Family(
            name="boundary",
            title="boundaries of semantic segmentation",
            metrics=(
                Metric(name="mIoU", description="IoU of the pixels near contours, mean over classes", official=False),
                *_by_group("mean boundary IoU"),
            ),
            headline="mIoU",
            columns=(("mIoU", "mIoUr", "mIoUc", "mIoUf"),),
        ),
    ),
)


def iou_and_accuracy(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, ..., K) areas right, predicted, labelled -> IoU and accuracy (..., K) in percent.

    IoU is NaN for a class that is neither labelled nor predicted, accuracy for one that is not labelled; a class that
    is predicted but absent has IoU 0.
    """
    right, predicted, labelled = totals.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * right / (predicted + labelled - right), 100 * right / labelled


def summarise(totals: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """All metrics of the family sem_seg, each (...,) in percent: (3, ..., K) areas, (K,) of "r", "c", "f".

    Means skip NaN; the mean of a group without any number is NaN. The boundary family has the mIoU among them.
    """
    iou, accuracy = iou_and_accuracy(totals)
    right, _, labelled = totals.astype(np.float64).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing is NaN
        return {
            "mIoU": np.nanmean(iou, axis=-1),
            "mAcc": np.nanmean(accuracy, axis=-1),
            "aAcc": 100 * right / labelled,
            **{f"mIoU{group}": np.nanmean(iou[..., groups == group], axis=-1) for group in GROUPS},
        }


def values(family: str, areas: Areas, groups: np.ndarray) -> dict[str, float | None]:
    """The metrics of a family in percent, None where there is nothing to measure."""
    found = summarise(areas.totals, groups)
    return {name: _number(found[name]) for name in METRICS.family(family).names}


def resampled(areas: Areas, groups: np.ndarray, resamples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Every metric of `summarise` (B,) on images drawn with replacement; the same draws for a seed and images."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(areas.num_images, np.full(areas.num_images, 1 / areas.num_images), size=resamples)
    return summarise(areas.resampled(weights), groups)


def intervals(
    family: str, areas: Areas, groups: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals in percent over images drawn with replacement; classes stay as they are. None if unmeasured."""
    measured, drawn = summarise(areas.totals, groups), resampled(areas, groups, resamples, seed)
    result = {}
    for name in METRICS.family(family).names:
        found = interval(np.atleast_1d(measured[name]), drawn[name], bounds=PERCENT)
        result[name] = (found.low, found.high) if found else None
    return result


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
