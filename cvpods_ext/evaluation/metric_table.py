"""What a task measures: families of metrics, their names, units and directions. The only list of metric names.

results.json, tables, cards, plots, `keep_best` and progress lines all read the metric table of their task. What a
results.json of another version holds beyond it is shown as it is, since a table of numbers must not lose any. Imports
no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cvpods_ext.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number, shown with `digits` behind the point.

    `higher_is_better` is None where that is not known: no value is then marked as the best. `official` means that it
    equals what the benchmark's own evaluator prints; others are extensions.
    """

    name: str
    description: str
    unit: str = "%"
    digits: int = 1  # more would show noise
    higher_is_better: bool | None = True
    official: bool = True

    @property
    def heading(self) -> str:
        """The name for the head of a column, with its unit unless that is percent."""
        return self.name if self.unit == "%" else f"{self.name} ({self.unit})"

    def format(self, value: float, sign: str = "") -> str:
        """The value as a table shows it; with `sign="+"` also the sign of positive numbers."""
        return f"{value:{sign}.{self.digits}f}"


@dataclass(frozen=True, kw_only=True)
class Family:
    """Metrics that are computed together; results.json keeps them under the family's name.

    `headline` is the metric that stands for the family where there is room for one. `columns` are the sets of metrics
    that a table may show by default: the first of which something beside the headline is known. `note` says under
    every table what a reader must know before comparing these numbers with those of others.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    headline: str
    columns: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        assert len(set(names)) == len(names), f"a metric name of {self.name} stands twice"
        shown = {self.headline, *(name for columns in self.columns for name in columns)}
        assert shown <= set(names), f"{self.name} shows {sorted(shown - set(names))}, which it does not have"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of a full table."""
        return tuple(metric.name for metric in self.metrics)

    @property
    def official(self) -> bool:
        """Whether the headline is what the benchmark's own evaluator prints."""
        return self.metric(self.headline).official

    def metric(self, name: str) -> Metric:
        """The metric called `name`; ConfigError with the nearest name if there is none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise ConfigError(f"unknown metric {name!r} of {self.name}: {nearest(name, self.names)}")

    def default_columns(self, known: Collection[str]) -> tuple[str, ...]:
        """The set of `columns` to show where the metrics in `known` have a value."""
        for columns in self.columns:
            if any(name in known for name in columns if name != self.headline):
                return columns
        return self.columns[0]

    def extended(self, names: Iterable[str]) -> Family:
        """The family with further metrics of which only the names are known, behind its own."""
        strange = tuple(_unknown_metric(name) for name in names if name not in self.names)
        return replace(self, metrics=(*self.metrics, *strange)) if strange else self


def _nothing(settings: Mapping[str, Any]) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """The families of a task, in the order in which tables show them.

    `conditions` are settings of a test that move its numbers: results that differ in one of them are not comparable.
    `observations` are settings that a test notes about its predictions, so that they differ between seeds. `remark`
    says, from the settings of a test, what a reader of its numbers must know, in one line; "" is nothing.
    """

    families: tuple[Family, ...] = ()
    conditions: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()
    remark: Callable[[Mapping[str, Any]], str] = _nothing

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the families."""
        return tuple(family.name for family in self.families)

    @property
    def default(self) -> tuple[str, ...]:
        """Names of the families that a test computes if it is not told: those of the official protocol."""
        return tuple(family.name for family in self.families if family.official)

    def family(self, name: str) -> Family:
        """The family called `name`; ConfigError with the nearest name if there is none."""
        for family in self.families:
            if family.name == name:
                return family
        raise ConfigError(f"unknown metric family {name!r}: {nearest(name, self.names)}")

    def find(self, key: str) -> tuple[Family, Metric]:
        """Family and metric of a key such as segm/APr; ConfigError with the nearest key if there is none."""
        family, _, metric = key.partition("/")
        keys = [f"{family.name}/{name}" for family in self.families for name in family.names]
        if key not in keys:
            raise ConfigError(f"unknown metric {key!r}: {nearest(key, keys)}")
        return self.family(family), self.family(family).metric(metric)

    def headlines(self, values: Mapping[str, Mapping[str, float | None]]) -> Iterator[tuple[str, float]]:
        """Key and value of every family's headline in the metrics of a test, as in results.json."""
        for family in self.families:
            value = values.get(family.name, {}).get(family.headline)
            if value is not None:
                yield f"{family.name}/{family.headline}", value

    def extended(self, measured: Iterable[Mapping[str, Collection[str]]]) -> MetricTable:
        """The table with every family and metric that results hold beyond it, behind its own.

        `measured` are the metrics of some results.json: family -> name -> value.
        """
        found: dict[str, dict[str, None]] = {name: {} for name in self.names}
        for metrics in measured:
            for family, names in metrics.items():
                found.setdefault(family, {}).update(dict.fromkeys(names))
        known = tuple(family.extended(found[family.name]) for family in self.families)
        strange = tuple(_unknown_family(n, tuple(names)) for n, names in found.items() if n not in self.names and names)
        return replace(self, families=(*known, *strange))


_SHOWN = 20  # names in a message; all of them would fill the screen


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a message about a wrong name: the nearest of those that are known, and all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = [*known][:_SHOWN]
    more = f", and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{hint}(known: {', '.join(shown)}{more})"


def _unknown_metric(name: str) -> Metric:
    return Metric(name=name, description="unknown to this version", unit="%", higher_is_better=None, official=False)


def _unknown_family(name: str, names: tuple[str, ...]) -> Family:
    metrics = tuple(map(_unknown_metric, names))
    note = f"{name} is unknown to this version of cvpods_ext: the numbers are shown as they are"
    return Family(name=name, title=name, metrics=metrics, headline=names[0], columns=(names,), note=note)
