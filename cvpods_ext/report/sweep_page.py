"""The page of a sweep: how metrics move with each setting that has several numbers, above the tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from cvpods_ext.config.sweep import Swept
from cvpods_ext.evaluation.metric_table import Family
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report.charts import Axis, chart, colour, polyline, x_of, y_of
from cvpods_ext.report.html import figure, render, table_html
from cvpods_ext.report.table import Table
from cvpods_ext.report.task_report import PagePart
from cvpods_ext.tasks.task import metric_table

MOST_LINES = 6
_LINE = 13  # pixels between labels
_LOGARITHMIC = 8  # largest value divided by smallest, from which on an axis is logarithmic

Points = Mapping[float, Sequence[float]]  # value of the setting -> the metric in every run with it


def page(name: str, tables: Sequence[Table], swept: Sequence[Swept], outputs: Sequence[Path]) -> str:
    """HTML of the sweep of experiment `name`; the results lie in `outputs`."""
    results = [Results.read(output / "results.json") for output in outputs]
    figures = "".join(_figures(swept, results))
    charts = f'<div class="charts">{figures}</div>' if figures else ""
    return render(f"Sweep of {name}", (), PagePart(body=charts + "".join(map(table_html, tables))))


def _figures(swept: Sequence[Swept], results: Sequence[Results]) -> Iterator[str]:
    table = metric_table(results[0].task, only_known=True)
    for one in swept:
        numbers = _numbers(one)
        for family_name in dict.fromkeys(name for result in results for name in result.metrics):
            if len(numbers) > 1 and family_name in table.names:
                lines = _lines(one.key, table.family(family_name), results)
                if lines:
                    yield figure(f"{family_name} against {one.key}", _chart(one.key, numbers, lines))


def _numbers(one: Swept) -> list[float]:
    """The values in order, [] where one is no number."""
    try:
        return sorted(float(value) for value in one.values)
    except ValueError:
        return []


def _lines(key: str, family: Family, results: Sequence[Results]) -> dict[str, Points]:
    """The default columns of a family against the setting, over all runs."""
    measured = [result.metrics.get(family.name, {}) for result in results]
    known = {name for metrics in measured for name, value in metrics.items() if value is not None}
    found: dict[str, dict[float, list[float]]] = {}
    for name in family.default_columns(known)[:MOST_LINES]:
        for result, metrics in zip(results, measured, strict=True):
            value, setting = metrics.get(name), _setting(result, key)
            if value is not None and setting is not None:
                found.setdefault(name, {}).setdefault(setting, []).append(value)
    return {name: points for name, points in found.items() if len(points) > 1}


def _setting(result: Results, key: str) -> float | None:
    """The value that a run had, from the overrides that it notes."""
    for text in result.provenance.get("overrides", ()):
        name, _, value = str(text).partition("=")
        if name == key:
            return float(value)
    return None


def _chart(key: str, numbers: Sequence[float], lines: Mapping[str, Points]) -> str:
    """A line through the means of each metric, and a bar from the lowest run to the highest."""
    log = numbers[0] > 0 and numbers[-1] / numbers[0] >= _LOGARITHMIC
    x = Axis(key, numbers[0], numbers[-1], tuple(numbers), log=log)
    values = [value for points in lines.values() for runs in points.values() for value in runs]
    step = 10.0 ** math.floor(math.log10(max(max(values) - min(values), 1e-3)))
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    high = high if high > low else low + step
    y = Axis("", low, high, tuple(low + (high - low) * i / 4 for i in range(5)))
    marks = []
    for position, (name, points) in enumerate(lines.items()):
        tone, means = colour(position), {at: sum(runs) / len(runs) for at, runs in sorted(points.items())}
        marks.append(polyline(position, ((x_of(x, at), y_of(y, mean)) for at, mean in means.items())))
        for at, mean in means.items():
            ends = (y_of(y, min(points[at])), y_of(y, max(points[at])))
            across, bottom, top = (f"{place:.1f}" for place in (x_of(x, at), *ends))
            title = escape(f"{name} {mean:.1f} [{min(points[at]):.1f}, {max(points[at]):.1f}] at {key}={at:g}")
            marks.append(f'<line x1="{across}" x2="{across}" y1="{bottom}" y2="{top}" stroke="{tone}"/>')
            marks.append(
                f'<circle cx="{across}" cy="{y_of(y, mean):.1f}" r="3.5" fill="{tone}"><title>{title}</title></circle>'
            )
    ends = {name: y_of(y, sum(points[max(points)]) / len(points[max(points)])) for name, points in lines.items()}
    for position, (name, at) in enumerate(zip(lines, _apart(list(ends.values())), strict=True)):
        label = f'<text x="{x_of(x, numbers[-1]) - 7:.1f}" y="{at:.1f}" text-anchor="end" fill="{colour(position)}">'
        marks.append(f"{label}{escape(name)}</text>")
    return chart(x, y, marks, f"metrics against {key}")


def _apart(places: Sequence[float]) -> list[float]:
    """Heights of labels above these places, from the lowest on pushed up so that no two overlap."""
    found, last = [0.0] * len(places), math.inf
    for i in sorted(range(len(places)), key=lambda i: -places[i]):
        last = found[i] = min(places[i] - 8, last - _LINE)
    return found
