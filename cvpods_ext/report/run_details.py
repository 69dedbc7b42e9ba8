"""What the runs behind a comparison were: seed, length, date, changed settings, and the curves of their losses."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from cvpods_ext.report.charts import Axis, chart, colour, polyline, x_of, y_of
from cvpods_ext.report.html import figure
from cvpods_ext.report.overview import axis_ticks
from cvpods_ext.report.runs import REPETITION_KEYS, Entry, labels
from cvpods_ext.report.table import UNMEASURED, Cell, Table
from cvpods_ext.runtime.records import METRICS, read_records

LOSS = "total_loss"
POINTS = 150  # of a curve: means over as many equal parts of the run
_HEADER = ("experiment", "seed", "changed settings", "tested on", "date", "iterations", "training hours")


def runs_table(entries: Sequence[Entry]) -> Table:
    """A row for each measured run, as far as its results.json tells; "-" for the rest."""
    measured = [entry for entry in entries if entry.runs]
    rows = []
    for label, entry in zip(labels(measured), measured, strict=True):
        for run in entry.runs:
            made = run.provenance
            changed = [f"{key}={_after(pair)}" for key, pair in run.changes.items() if key not in REPETITION_KEYS]
            rows.append(
                (
                    Cell(label),
                    Cell(str(made.get("seed", UNMEASURED))),
                    Cell(", ".join(changed) or UNMEASURED),
                    Cell(str(made.get("devices", UNMEASURED))),
                    Cell(str(made.get("date", UNMEASURED))[:10]),
                    _number(made.get("iteration"), 0),
                    _number(made.get("training_hours"), 2),
                )
            )
    return Table("Runs", _HEADER, tuple(rows), text_columns=5)


def loss_curves(entries: Sequence[Entry]) -> str:
    """HTML of the total loss of every run whose metrics.jsonl lies beside its results; "" without any."""
    measured = [entry for entry in entries if entry.runs]
    found = [(i, curve) for i, entry in enumerate(measured) for path in entry.paths if (curve := _curve(path.parent))]
    if not found:
        return ""
    steps = [at for _, curve in found for at, _ in curve]
    losses = np.array([loss for _, curve in found for _, loss in curve])
    across = axis_ticks(0, max(steps))
    up = axis_ticks(0, float(np.quantile(losses, 0.98)))  # the first steps would press the rest together
    x = Axis("iteration", across[0], across[-1], tuple(across))
    y = Axis(LOSS.replace("_", " "), up[0], up[-1], tuple(up))
    lines = [polyline(i, ((x_of(x, at), y_of(y, loss)) for at, loss in curve)) for i, curve in found]
    names = "".join(
        f'<span><span class="swatch" style="background:{colour(i)}"></span>{escape(name)}</span>'
        for i, name in enumerate(labels(measured))
        if i in {one for one, _ in found}
    )
    picture = figure("Total loss of every run", chart(x, y, lines, "total loss against iteration"))
    return f'<h2>Training</h2><div class="legend">{names}</div><div class="charts">{picture}</div>'


def _curve(folder: Path) -> list[tuple[float, float]]:
    """Iteration and mean loss over at most POINTS equal parts of the run; [] where it wrote none."""
    path = folder / METRICS
    if not path.is_file():
        return []
    values = [
        (one["iteration"], one[LOSS])
        for one in read_records(path)
        if isinstance(one.get(LOSS), int | float) and np.isfinite(one[LOSS]) and "iteration" in one
    ]
    if len(values) < 2:
        return []
    parts = np.array_split(np.array(values, dtype=float), min(POINTS, len(values)))
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def _after(pair: object) -> object:
    return pair[1] if isinstance(pair, list) and len(pair) == 2 else pair


def _number(value: object, digits: int) -> Cell:
    return Cell(f"{value:,.{digits}f}", float(value)) if isinstance(value, int | float) else Cell(UNMEASURED)
