"""Is one experiment better than another on this split? Intervals, differences, and a plain answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.bootstrap import Draws, draw, group_means, resampled_aps, resampled_means
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.metrics import BY_FREQUENCY
from cvpods_ext.evaluation.detection.per_category import category_aps
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.intervals import (
    PERCENT,
    ClassEffect,
    Difference,
    Interval,
    class_effects,
    difference,
    interval,
    mix_seeds,
)


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
    return Resampled(mix_seeds(aps, seed), np.stack(points), first.frequency)


def intervals(experiment: Resampled, draws: Draws) -> dict[str, Interval | None]:
    """AP, APr, APc, APf with intervals within [0, 100]; None for a group without annotations."""
    points = group_means(experiment.point, experiment.frequency)
    mean = experiment.point.mean(axis=0)
    means, spread = resampled_means(experiment.aps, mean, experiment.frequency, draws.categories)
    return {name: interval(points[:, k], means[:, k], spread[k], bounds=PERCENT) for k, name in enumerate(BY_FREQUENCY)}


def compare(first: Resampled, second: Resampled, draws: Draws) -> dict[str, Difference | None]:
    """Differences of AP, APr, APc, APf on the same draws; None for a group without annotations."""
    change = second.point.mean(axis=0) - first.point.mean(axis=0)
    means, spread = resampled_means(second.aps - first.aps, change, first.frequency, draws.categories)
    before = group_means(first.point, first.frequency).mean(axis=0)
    after = group_means(second.point, second.frequency)
    result: dict[str, Difference | None] = {}
    for k, name in enumerate(BY_FREQUENCY):
        change = interval(after[:, k] - before[k], means[:, k], spread[k])
        result[name] = None if change is None else difference(change)
    return result


def category_effects(first: Resampled, second: Resampled) -> list[ClassEffect]:
    """Categories (positions) by the size of their effect on the mean AP, gains and losses together, largest first."""
    return class_effects(first.point.mean(axis=0), second.point.mean(axis=0))


def draws_for(table: MatchTable, resamples: int = 1000, seed: int = 0) -> Draws:
    """Draws that fit the split of `table`; use the same ones for everything that is compared."""
    return draw(len(table.image_ids), table.frequency, resamples, seed)
