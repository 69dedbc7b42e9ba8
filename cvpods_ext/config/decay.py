"""How the learning rate falls over a run: objects for `schedule.decay`, as shares of `schedule.lr`.

As text they read like their constructors, `MultiStep(drops=(2/3, 8/9))`, on the command line and in JSON. A config.py
may bring a subclass of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from cvpods_ext.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Decay(ABC):
    """Base of the decays; `share` gives the part of the rate that is left."""

    @abstractmethod
    def share(self, iteration: int, iters: int) -> float:
        """What remains of `schedule.lr` at `iteration` (from 0) of `iters`, in [0, 1], before the warm-up's factor."""

    def __str__(self) -> str:
        values = ", ".join(f"{field.name}={_text(getattr(self, field.name))}" for field in fields(self))
        return f"{type(self).__name__}({values})"


@dataclass(frozen=True, kw_only=True)
class MultiStep(Decay):
    """A tenth at each of `drops`, which are fractions of the run; () is a constant rate.

    ConfigError if they do not rise within (0, 1].
    """

    drops: tuple[float, ...] = (2 / 3, 8 / 9)

    def __post_init__(self) -> None:
        if any(not 0 < drop <= 1 for drop in self.drops) or list(self.drops) != sorted(self.drops):
            raise ConfigError(f"schedule.decay: drops must be ascending fractions of iters in (0, 1], got {self.drops}")

    def milestones(self, iters: int) -> tuple[int, ...]:
        """Iterations at which the learning rate is divided by ten."""
        return tuple(round(iters * drop) for drop in self.drops)

    def share(self, iteration: int, iters: int) -> float:
        """0.1 to the power of the drops so far."""
        return 0.1 ** sum(iteration >= milestone for milestone in self.milestones(iters))


@dataclass(frozen=True, kw_only=True)
class Cosine(Decay):
    """Half a cosine over the run (https://arxiv.org/abs/1608.03983) from 1 to `end`; ConfigError outside [0, 1]."""

    end: float = 0.0

    def __post_init__(self) -> None:
        _check_end(self.end)

    def share(self, iteration: int, iters: int) -> float:
        """end + (1 - end) (1 + cos(pi iteration / iters)) / 2."""
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * iteration / iters)) / 2


@dataclass(frozen=True, kw_only=True)
class Polynomial(Decay):
    """A power of what is left of the run, from 1 to `end`; ConfigError for an end outside [0, 1] or a power of 0."""

    power: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_end(self.end)
        if not self.power > 0:
            raise ConfigError(f"schedule.decay: power must be above 0, got {self.power}")

    def share(self, iteration: int, iters: int) -> float:
        """end + (1 - end) (1 - iteration / iters)^power."""
        return self.end + (1 - self.end) * (1 - iteration / iters) ** self.power


@dataclass(frozen=True, kw_only=True)
class Steps(MultiStep):
    """The rate times `gamma` at each of `drops`: a MultiStep whose drops are no tenths."""

    gamma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"schedule.decay: gamma must lie in (0, 1], got {self.gamma}")

    def share(self, iteration: int, iters: int) -> float:
        """`gamma` to the power of the drops so far."""
        return self.gamma ** sum(iteration >= milestone for milestone in self.milestones(iters))


@dataclass(frozen=True, kw_only=True)
class EpochCosine(Cosine):
    """Half a cosine over the run in `epochs` steps: the rate is the same within an epoch."""

    epochs: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1:
            raise ConfigError(f"schedule.decay: epochs must be at least 1, got {self.epochs}")

    def share(self, iteration: int, iters: int) -> float:
        """That of `Cosine` at the start of the epoch."""
        return super().share(iteration * self.epochs // iters, self.epochs)


def _check_end(end: float) -> None:
    if not 0 <= end <= 1:
        raise ConfigError(f"schedule.decay: end is a share of schedule.lr in [0, 1], got {end}")


def _text(value: Any) -> str:
    """A value as it may be typed; 0.6666666666666666 is 2/3."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})"
    if isinstance(value, float) and len(repr(value)) > 6:
        fraction = Fraction(value).limit_denominator(100)
        return str(fraction) if float(fraction) == value else repr(value)
    return repr(value)
