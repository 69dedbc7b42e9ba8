"""The picture on top of a page: every experiment's metrics as dots with intervals, and differences to one of them.

Drawn with HTML elements placed in percent of their row, so that it fits any width of a screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from cvpods_ext.report.table import Cell, Table, short_names

HIGHER, LOWER = "higher", "lower"  # verdicts that are drawn in a colour
_TICKS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PARTS = 4  # of an axis, at least


def overview(values: Table, differences: Table | None = None) -> str:
    """HTML of one panel for each number column of `values`, differences to the baseline beside each.

    `values` holds a row for each experiment; `differences` is made by `interval_tables.difference_table`.
    """
    panels = []
    names = short_names([row[0].text for row in values.rows])
    for column in range(values.text_columns, len(values.header)):
        metric = values.header[column]
        rows = [(name, row[column]) for name, row in zip(names, values.rows, strict=True)]
        if any(cell.value is not None for _, cell in rows):
            panels.append(_panel(metric, rows))
            if differences is not None:
                panels += _differences(metric, differences)
    return f'<div class="dots-grid">{"".join(panels)}</div>' if panels else ""


def _differences(metric: str, table: Table) -> list[str]:
    """The panel of a metric's differences, in the order of the table; [] where none was measured."""
    found = [row for row in table.rows if row[1].text == metric and row[3].value is not None]
    if not found:
        return []
    names = short_names([row[0].text for row in found])
    rows = [(name, row[3]) for name, row in zip(names, found, strict=True)]
    base = table.title.rpartition("differences to ")[2]
    return [_panel(f"{metric}: difference to {base}", rows, [row[2].text for row in found])]


def _panel(title: str, rows: Sequence[tuple[str, Cell]], verdicts: Sequence[str] = ()) -> str:
    """Dots with their ranges under each other; of differences also the line at zero and the colour of the verdict."""
    ends = [end for _, cell in rows for end in (cell.value, cell.low, cell.high) if end is not None]
    ticks = axis_ticks(min([*ends, 0.0] if verdicts else ends), max([*ends, 0.0] if verdicts else ends))
    low, span = ticks[0], ticks[-1] - ticks[0]
    lines = []
    for position, (name, cell) in enumerate(rows):
        verdict = verdicts[position] if verdicts else ""
        kind = f" {verdict}" if verdict in (HIGHER, LOWER) else " unclear" if verdicts else ""
        marks = f'<i class="zero" style="left:{100 * (0 - low) / span:.2f}%"></i>' if verdicts else ""
        if cell.value is not None:
            if cell.low is not None and cell.high is not None:
                left, width = 100 * (cell.low - low) / span, 100 * (cell.high - cell.low) / span
                marks += f'<i class="range" style="left:{left:.2f}%;width:{width:.2f}%"></i>'
            marks += f'<i class="dot" style="left:{100 * (cell.value - low) / span:.2f}%"></i>'
        lines.append(
            f'<div class="dots-row{kind}"><span class="name">{escape(name)}</span>'
            f'<span class="strip">{marks}</span><span class="number">{escape(cell.text)}</span></div>'
        )
    labels = "".join(f'<i style="left:{100 * (tick - low) / span:.2f}%">{tick:g}</i>' for tick in ticks)
    strip = f'<span class="name"></span><span class="strip">{labels}</span><span></span>'
    axis = f'<div class="dots-row axis">{strip}</div>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(lines)}{axis}</figure>"


def axis_ticks(low: float, high: float) -> list[float]:
    """Round numbers at equal steps, the first at most `low`, the last at least `high` and above the first."""
    span = max(high - low, 1e-3)
    unit = 10.0 ** math.floor(math.log10(span / _PARTS))
    step = next(unit * one for one in _TICKS if span / (unit * one) <= _PARTS)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(step * k, 9) for k in range(first, last + 1)]
