"""The table of all classes on a page: sorted and filtered by a script, with examples of errors under each class.

Shapes: K = classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from cvpods_ext.report import charts
from cvpods_ext.report.html import checkboxes


@dataclass(frozen=True)
class Example:
    """A picture of one error. `error` is its kind, `image` a data: URI, `source` says which image it is from."""

    run: int
    title: str
    error: str
    truth: str | None
    prediction: str | None
    score: float | None
    source: str
    image: str


@dataclass(frozen=True)
class Browser:
    """What the table says of experiments: `values` of each in percent, (K,) with NaN where nothing was measured.

    `one` and `value` are words for a class and its value; `counts` (K,) by their titles, None for unknown ones;
    `groups` (K,) holds keys of `group_titles` or "", `errors` the kinds of errors that can be chosen.
    """

    runs: Sequence[str]
    names: Sequence[str]
    values: Sequence[np.ndarray]
    counts: Mapping[str, np.ndarray | None]
    groups: Sequence[str]
    group_titles: Mapping[str, str]
    one: str
    value: str
    errors: Sequence[str] = ()

    def effects(self) -> tuple[str, np.ndarray]:
        """What the classes are sorted by, and its (K,) values.

        One experiment: what is missing to 100. Two: second minus first. More: the range over all of them.
        """
        if len(self.values) == 1:
            return "missing to 100", 100 - self.values[0]
        if len(self.values) == 2:
            return "second minus first", self.values[1] - self.values[0]
        stacked = np.stack(self.values)
        return "range", stacked.max(axis=0) - stacked.min(axis=0)

    def to_draw(self, num_examples: np.ndarray, most: int) -> set[int]:
        """Classes by falling size of their effect, as long as their examples, (K,) over all runs, are not too many."""
        effect = self.effects()[1]
        order = np.argsort(np.where(np.isfinite(effect), -np.abs(effect), np.inf), kind="stable")
        known = order[: int(np.isfinite(effect).sum())]
        return set(known[np.cumsum(num_examples[known]) <= most].tolist())

    def data(self, drawn: set[int], examples: Mapping[int, Sequence[Example]]) -> dict[str, Any]:
        """What the script reads; classes that no experiment was measured on are left out."""
        effect = self.effects()[1]
        return {
            "runs": list(self.runs),
            "errors": list(self.errors),
            "groups": dict(self.group_titles),
            "counts": len(self.counts),
            "categories": [
                {
                    "name": name,
                    "group": self.groups[k],
                    "counts": [None if column is None else int(column[k]) for column in self.counts.values()],
                    "values": [_number(values[k]) for values in self.values],
                    "effect": _number(effect[k]),
                    "drawn": k in drawn,
                    "examples": [asdict(one) for one in examples.get(k, ())],
                }
                for k, name in enumerate(self.names)
                if np.isfinite(self.values[0][k])
            ],
        }

    def html(self, title: str, explanation: str) -> str:
        """Heading, filters and an empty table; `explanation` is HTML."""
        groups = checkboxes("group", list(self.group_titles.items())) if any(self.groups) else ""
        errors = checkboxes("error", [(name, name) for name in self.errors]) if self.errors else ""
        heads = {"name": self.one, "group": "group"}
        heads |= {f"count{i}": name for i, name in enumerate(self.counts)}
        heads |= {f"value{i}": f"{self.value} {run}" for i, run in enumerate(self.runs)}
        heads |= {"effect": self.effects()[0]}
        columns = "".join(
            f'<th data-key="{key}"{" class=words" if key in ("name", "group") else ""}>{escape(name)}</th>'
            for key, name in heads.items()
        )
        return (
            f"<h2>{escape(title)}</h2><p>{explanation}</p>"
            f'<div class="filters">{groups}{errors}'
            f'<input id="search" type="search" placeholder="{escape(self.one)} name"><span id="count"></span></div>'
            f'<div class="scroll"><table id="categories"><thead><tr>{columns}</tr></thead><tbody></tbody></table></div>'
            '<button id="more" class="more" hidden>more</button>'
        )


def script() -> str:
    """The script that fills the table."""
    return files("cvpods_ext.report").joinpath("class_browser.js").read_text(encoding="utf-8")


def legend(runs: Sequence[str]) -> str:
    """Boxes that show and hide an experiment in charts and pictures."""
    entries = "".join(
        f'<label><input type="checkbox" name="run" value="{i}" checked>'
        f'<span class="swatch" style="background:{charts.colour(i)}"></span>{escape(run)}</label>'
        for i, run in enumerate(runs)
    )
    return f'<h2>Curves</h2><div class="legend">{entries}</div>'


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
