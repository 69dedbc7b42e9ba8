"""Numbers that others published, each with its source and with what keeps it from being compared blindly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """What one source reports for one experiment on one data set; metrics in percent by task and name.

    `confounders` are the circumstances that move the number: maximum detections, schedule, input, test options.
    `table` holds the figures that an overview of the same source prints for the same model, where it has one, and
    `cost` what it says of time and memory. `row` is what the source calls the experiment, if not as we do.
    """

    metrics: Mapping[str, Mapping[str, float]]
    source: str
    url: str
    confounders: Mapping[str, Any]
    table: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    row: str = ""

    def describe(self) -> str:
        """Source, confounders, cost and what its own overview says otherwise, in one line."""
        details = [f"{key.replace('_', ' ')} {_plain(value)}" for key, value in self.confounders.items()]
        cost = [f"{key.replace('_', ' ')} {_plain(value)}" for key, value in self.cost.items()]
        return "; ".join([f"{self.source} ({self.url})", *details, *cost, *self.disagreements()])

    def disagreements(self) -> list[str]:
        """Where the overview's figure is not the other one rounded to as many digits."""
        return [
            f"its table says {family} {name} {shown}, not {self.metrics[family][name]}"
            for family, figures in self.table.items()
            for name, shown in figures.items()
            if abs(shown - self.metrics[family][name]) > 0.05 + 1e-9
        ]


def _plain(value: Any) -> str:
    return ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


@cache
def load() -> Mapping[str, Mapping[str, Published]]:
    """All published results: experiment name -> data set -> record.

    In the file a name may stand for another: folders whose numbers the source gives under a name of its own.
    """
    text = files("cvpods_ext.report").joinpath("published_results.json").read_text(encoding="utf-8")
    written: dict[str, Any] = json.loads(text)
    return {
        experiment: {
            dataset: Published(**record)
            for dataset, record in (written[entry] if isinstance(entry, str) else entry).items()
        }
        for experiment, entry in written.items()
    }


def find(experiment: str, dataset: str) -> Published | None:
    """What was published for `experiment` on `dataset`, if anything."""
    return load().get(experiment, {}).get(dataset)
