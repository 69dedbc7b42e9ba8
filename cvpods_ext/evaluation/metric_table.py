"""What a task measures: families of metrics, their names, units and directions. The only list of metric names.

results.json, tables, cards, plots, `keep_best` and progress lines all read the metric table of their task. Imports no
torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from cvpods_ext.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number. `official` means that it equals what the benchmark's own evaluator prints; others are extensions."""

    name: str
    description: str
    unit: str = "%"
    higher_is_better: bool = True
    official: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """Metrics that are computed together; results.json keeps them under the family's name.

    `headline` is the metric that stands for the family where there is room for one. `columns` are the sets of metrics
    that a table may show by default: the first of which something beside the headline is known.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    headline: str
    columns: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        assert len(set(names)) == len(names), f"a metric name of {self.name} stands twice"
        shown = {self.headline, *(name for columns in self.columns for name in columns)}
        assert shown <= set(names), f"{self.name} shows {sorted(shown - set(names))}, which it does not have"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of a full table."""
        return tuple(metric.name for metric in self.metrics)

    def metric(self, name: str) -> Metric:
        """The metric called `name`; ConfigError with the nearest name if there is none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise ConfigError(f"unknown metric {name!r} of {self.name}: {_nearest(name, self.names)}")

    def default_columns(self, known: Collection[str]) -> tuple[str, ...]:
        """The set of `columns` to show where the metrics in `known` have a value."""
        for columns in self.columns:
            if any(name in known for name in columns if name != self.headline):
                return columns
        return self.columns[0]


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """The families of a task, in the order in which tables show them."""

    families: tuple[Family, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the families."""
        return tuple(family.name for family in self.families)

    def family(self, name: str) -> Family:
        """The family called `name`; ConfigError with the nearest name if there is none."""
        for family in self.families:
            if family.name == name:
                return family
        raise ConfigError(f"unknown metric family {name!r}: {_nearest(name, self.names)}")

    def find(self, key: str) -> tuple[Family, Metric]:
        """Family and metric of a key such as segm/APr; ConfigError with the nearest key if there is none."""
        family, _, metric = key.partition("/")
        keys = [f"{family.name}/{name}" for family in self.families for name in family.names]
        if key not in keys:
            raise ConfigError(f"unknown metric {key!r}: {_nearest(key, keys)}")
        return self.family(family), self.family(family).metric(metric)

    def headlines(self, values: Mapping[str, Mapping[str, float | None]]) -> Iterator[tuple[str, float]]:
        """Key and value of every family's headline in the metrics of a test, as in results.json."""
        for family in self.families:
            value = values.get(family.name, {}).get(family.headline)
            if value is not None:
                yield f"{family.name}/{family.headline}", value


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}(known: {', '.join(known)})"
