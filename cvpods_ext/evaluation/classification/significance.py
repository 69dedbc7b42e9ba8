"""Is one classifier better than another on this split? Every metric on the same resampled images.

Shapes: I = images, K = classes, B = resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.classification.metrics import class_totals, resampled, summarise
from cvpods_ext.evaluation.classification.scores import TopScores
from cvpods_ext.evaluation.intervals import PERCENT, Difference, Interval, difference, interval, mix_seeds


@dataclass(frozen=True)
class Resampled:
    """One experiment: each metric of its seeds (S,), on the draws (B,) mixed over seeds, and classes' top1 (K,)."""

    points: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]
    classes: np.ndarray


def resample(
    runs: Sequence[TopScores], labels: np.ndarray, groups: np.ndarray, resamples: int, seed: int = 0
) -> Resampled:
    """All seeds of an experiment on the draws that `seed` gives for this many images.

    `labels` are of all images of the set by their ids, `groups` (K,) many, medium or few. DataError if the runs hold
    different images.
    """
    if any(not np.array_equal(run.image_ids, runs[0].image_ids) for run in runs):
        raise DataError("runs of different images cannot be compared; test all of them on the whole set")
    truth, num_classes = labels[runs[0].image_ids - 1], len(groups)
    ranks = [run.ranks(truth) for run in runs]
    totals = np.stack([class_totals(truth, each, num_classes) for each in ranks], axis=1)  # (3, S, K)
    with np.errstate(invalid="ignore"):
        classes = (100 * totals[1] / totals[0]).mean(axis=0)
    drawn = [summarise(resampled(truth, each, num_classes, resamples, seed), groups) for each in ranks]
    mixed = {name: mix_seeds(np.stack([one[name] for one in drawn]), seed) for name in drawn[0]}
    return Resampled(summarise(totals, groups), mixed, classes)


def intervals(experiment: Resampled) -> dict[str, Interval | None]:
    """Every metric; None for a group without test images."""
    return {
        name: interval(points, experiment.drawn[name], bounds=PERCENT) for name, points in experiment.points.items()
    }


def compare(first: Resampled, second: Resampled) -> dict[str, Difference | None]:
    """Second minus first on the same draws; None for a group without test images."""
    result: dict[str, Difference | None] = {}
    for name, before in first.points.items():
        change = interval(second.points[name] - before.mean(), second.drawn[name] - first.drawn[name])
        result[name] = None if change is None else difference(change)
    return result
