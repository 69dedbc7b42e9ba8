"""How sure a number is: intervals from resampled values, differences with a verdict, what single classes add to a mean.

Shapes: B = resamples, S = seeds (runs), K = classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

PERCENT = (0.0, 100.0)  # what accuracies lie between
ROUNDING = 1e-9  # percent; a smaller difference is that of two sums in another order
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
class ClassEffect:
    """The value of a class before and after, in percent, and what its change adds to the mean over all classes."""

    category: int
    before: float
    after: float
    effect: float


def interval(
    points: np.ndarray,
    resampled: np.ndarray,
    spread: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval | None:
    """The mean of `points` (S,) with quantiles of `resampled` (B,) around their own mean, scaled by `spread`.

    Resampling repeats images, which may shift a metric a little; that shift says nothing about the measured value.
    The interval is cut at `bounds`.
    None if a point is not finite or no resample is.
    """
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(points).all() or not len(known):
        return None
    value = float(points.mean())
    deviations = (known - known.mean()) * spread
    low, high = np.clip(np.quantile(deviations, (0.025, 0.975)) + value, *bounds)
    return Interval(value, float(low), float(high), float(deviations.std()), tuple(points.tolist()))


def difference(change: Interval) -> Difference:
    """The verdict on the interval of a change: one only where it excludes zero."""
    verdict: Verdict = "not distinguishable at this size"
    if change.low > ROUNDING:
        verdict = "higher"
    elif change.high < -ROUNDING:
        verdict = "lower"
    return Difference(change, (1.96 + 0.84) * change.standard_error, verdict)


def mix_seeds(resampled: np.ndarray, seed: int = 0) -> np.ndarray:
    """(S, B, ...) -> (B, ...), the mean over as many runs as there are, drawn anew for every resample."""
    runs, draws = resampled.shape[:2]
    chosen = np.random.default_rng(seed).integers(0, runs, (runs, draws))
    return resampled[chosen, np.arange(draws)].mean(axis=0)


def class_effects(before: np.ndarray, after: np.ndarray) -> list[ClassEffect]:
    """Classes by the size of their effect on the mean, largest first, from their values (K,), NaN where unmeasured."""
    measured = np.flatnonzero(np.isfinite(before) & np.isfinite(after))
    effects = (after - before)[measured] / max(1, len(measured))
    order = np.argsort(-np.abs(effects), kind="stable")
    return [
        ClassEffect(int(k), float(before[k]), float(after[k]), float(e))
        for k, e in zip(measured[order], effects[order], strict=True)
    ]


@dataclass(frozen=True)
class Resampled:
    """One experiment: each metric of its seeds (S,), on the draws (B,) mixed over seeds, and values of classes (K,)."""

    points: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]
    classes: np.ndarray

    @classmethod
    def mix(
        cls, points: Sequence[Mapping[str, np.ndarray]], drawn: Sequence[Mapping[str, np.ndarray]], classes: np.ndarray
    ) -> Resampled:
        """From metrics (scalars), and metrics on the same draws (B,), of every seed; `classes` (S, K)."""
        return cls(
            {name: np.array([one[name] for one in points]) for name in points[0]},
            {name: mix_seeds(np.stack([one[name] for one in drawn])) for name in drawn[0]},
            classes.mean(axis=0),
        )

    def intervals(self) -> dict[str, Interval | None]:
        """Every metric in percent; None for one that was not measured."""
        return {name: interval(points, self.drawn[name], bounds=PERCENT) for name, points in self.points.items()}

    def differences_to(self, base: Resampled) -> dict[str, Difference | None]:
        """This minus `base` on the same draws; None for a metric that was not measured."""
        result: dict[str, Difference | None] = {}
        for name, before in base.points.items():
            change = interval(self.points[name] - before.mean(), self.drawn[name] - base.drawn[name])
            result[name] = None if change is None else difference(change)
        return result
