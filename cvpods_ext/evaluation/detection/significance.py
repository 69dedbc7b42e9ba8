"""Is one experiment better than another on this split? Intervals, differences, and a plain answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.bootstrap import Draws, draw, group_means, resampled_aps, resampled_means
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.metrics import BY_FREQUENCY
from cvpods_ext.evaluation.detection.per_category import category_aps
from cvpods_ext.evaluation.detection.precision_recall import curves

Verdict = Literal["higher", "lower", "not distinguishable at this size"]


@dataclass(frozen=True)
class Interval:
    """A value in percent with its 95 % interval and standard error; `runs` are the values of the single seeds."""

    value: float
    low: float
    high: float
    standard_error: float
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """Second minus first. `resolvable` is the difference that this split would show in four of five repetitions."""

    interval: Interval
    resolvable: float
    verdict: Verdict


@dataclass(frozen=True)
class Resampled:
    """One experiment on the draws: aps (B, K) averaged over its seeds, and point (seeds, K), both in percent."""

    aps: np.ndarray
    point: np.ndarray
    frequency: np.ndarray


def resample(runs: Sequence[MatchTable], draws: Draws, seed: int = 0) -> Resampled:
    """Put all seeds of an experiment on the same draws; with several, each resample also draws among the seeds."""
    first = runs[0]
    for run in runs:
        same = np.array_equal(run.image_ids, first.image_ids) and np.array_equal(run.category_ids, first.category_ids)
        if not same:
            raise DataError("runs of different splits cannot be compared: their images or categories differ.")
    found = [curves(run.evaluated, run.objects, run.num_categories, run.criteria, areas=1) for run in runs]
    points = [category_aps(one.precision) for one in found]
    aps = np.stack([resampled_aps(run, draws.images) for run in runs])  # (seeds, B, K)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(runs), (len(runs), aps.shape[1]))
    mixed = aps[chosen, np.arange(aps.shape[1])].mean(axis=0)
    return Resampled(mixed, np.stack(points), first.frequency)


def intervals(experiment: Resampled, draws: Draws) -> dict[str, Interval | None]:
    """AP, APr, APc, APf with intervals; None for a group without annotations."""
    points = group_means(experiment.point, experiment.frequency)
    mean = experiment.point.mean(axis=0)
    means, spread = resampled_means(experiment.aps, mean, experiment.frequency, draws.categories)
    return {name: _interval(points[:, k], means[:, k], spread[k]) for k, name in enumerate(BY_FREQUENCY)}


def compare(first: Resampled, second: Resampled, draws: Draws) -> dict[str, Difference | None]:
    """Differences of AP, APr, APc, APf on the same draws; None for a group without annotations."""
    change = second.point.mean(axis=0) - first.point.mean(axis=0)
    means, spread = resampled_means(second.aps - first.aps, change, first.frequency, draws.categories)
    before = group_means(first.point, first.frequency).mean(axis=0)
    after = group_means(second.point, second.frequency)
    result: dict[str, Difference | None] = {}
    for k, name in enumerate(BY_FREQUENCY):
        interval = _interval(after[:, k] - before[k], means[:, k], spread[k])
        result[name] = None if interval is None else _difference(interval)
    return result


def _interval(points: np.ndarray, resampled: np.ndarray, spread: float) -> Interval | None:
    """Quantiles of the resamples around their own mean, scaled by `spread` and moved to the measured value.

    Resampling repeats images, which shifts AP a little; that shift says nothing about the measured value.
    """
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(points).all() or not len(known):
        return None
    value = float(points.mean())
    deviations = (known - known.mean()) * spread
    low, high = np.quantile(deviations, (0.025, 0.975)) + value
    return Interval(value, float(low), float(high), float(deviations.std()), tuple(points.tolist()))


def _difference(interval: Interval) -> Difference:
    verdict: Verdict = "not distinguishable at this size"
    if interval.low > 0:
        verdict = "higher"
    elif interval.high < 0:
        verdict = "lower"
    return Difference(interval, (1.96 + 0.84) * interval.standard_error, verdict)


@dataclass(frozen=True)
class CategoryEffect:
    """A category's AP before and after, in percent, and what its change adds to the mean AP of all categories."""

    category: int
    before: float
    after: float
    effect: float


def category_effects(first: Resampled, second: Resampled) -> list[CategoryEffect]:
    """Categories (positions) by the size of their effect on the mean, gains and losses together, largest first."""
    before, after = first.point.mean(axis=0), second.point.mean(axis=0)
    annotated = np.flatnonzero(np.isfinite(before) & np.isfinite(after))
    effects = (after - before)[annotated] / len(annotated)
    order = np.argsort(-np.abs(effects), kind="stable")
    return [
        CategoryEffect(int(k), float(before[k]), float(after[k]), float(e))
        for k, e in zip(annotated[order], effects[order], strict=True)
    ]


def draws_for(table: MatchTable, resamples: int = 1000, seed: int = 0) -> Draws:
    """Draws that fit the split of `table`; use the same ones for everything that is compared."""
    return draw(len(table.image_ids), table.frequency, resamples, seed)
