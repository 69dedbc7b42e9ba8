"""Charts as inline SVG: axes, and marks of several experiments, each in its colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# Okabe and Ito's palette, distinguishable with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#444444")
PERCENT_TICKS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 48, 22, 12, 40


def colour(position: int) -> str:
    """Colour of an experiment by its place in the table."""
    return COLOURS[position % len(COLOURS)]


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high` with labelled ticks."""

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Position in [0, 1]; values outside are clipped to the ends."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        at = math.log10(max(value, self.low)) if self.log else value
        return min(max((at - low) / (high - low), 0.0), 1.0)


def x_of(axis: Axis, value: float) -> float:
    """Where a value of the horizontal axis lies, in the chart's coordinates."""
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def y_of(axis: Axis, value: float) -> float:
    """Where a value of the vertical axis lies."""
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def polyline(position: int, points: Iterable[tuple[float, float]]) -> str:
    """The line of an experiment through points in the chart's coordinates."""
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline data-run="{position}" points="{text}" stroke="{colour(position)}"/>'


def chart(x: Axis, y: Axis, marks: Sequence[str], label: str) -> str:
    """An SVG image of `marks` on a grid."""
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in x.ticks:
        at = x_of(x, tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks:
        at = y_of(y, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{middle_x}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.title)}</text>')
    turn = f'transform="rotate(-90 12 {middle_y})"'
    parts.append(f'<text x="12" y="{middle_y}" text-anchor="middle" {turn}>{escape(y.title)}</text>')
    return "".join([*parts, *marks, "</svg>"])


def against_frequency(
    counts: np.ndarray, values: Sequence[np.ndarray], names: Sequence[str], what: str, of: str = "training images"
) -> str:
    """A dot for each class and experiment, and each experiment's running mean over classes of similar counts.

    counts (K,) are of what `of` says; each of `values` (K,) in percent, of what `what` says, NaN without ground truth.
    """
    top = float(max(10, 10 ** math.ceil(math.log10(max(int(counts.max()), 1)))))
    ticks = tuple(10.0**power for power in range(round(math.log10(top)) + 1))
    x = Axis(of, 1, top, ticks, log=True)
    known = [float(value) for each in values for value in each[np.isfinite(each)]]
    steps = max(1, math.ceil(max(known, default=0.0) / 10))
    y = Axis(f"{what} %", 0, 10.0 * steps, tuple(10.0 * step for step in range(steps + 1)))
    marks = []
    for position, each in enumerate(values):
        annotated = np.flatnonzero(np.isfinite(each))
        tone = colour(position)
        for k in annotated.tolist():
            count, value = int(counts[k]), float(each[k])
            title = escape(f"{names[k]}: {count} {of}, {what} {value:.1f}")
            marks.append(
                f'<circle data-run="{position}" cx="{x_of(x, count):.1f}" cy="{y_of(y, value):.1f}" r="3" '
                f'fill="{tone}"><title>{title}</title></circle>'
            )
        centres, means = running_mean(counts[annotated], each[annotated])
        marks.append(polyline(position, ((x_of(x, c), y_of(y, m)) for c, m in zip(centres, means, strict=True))))
    return chart(x, y, marks, f"{what} against {of}")


def running_mean(counts: np.ndarray, values: np.ndarray, bins: int = 8) -> tuple[list[float], list[float]]:
    """Mean value in `bins` groups of equal size by count, at the geometric mean of the group's counts."""
    order = np.argsort(counts, kind="stable")
    groups = [part for part in np.array_split(order, min(bins, len(order))) if len(part)] if len(order) else []
    centres = [float(np.exp(np.log(np.maximum(counts[part], 1)).mean())) for part in groups]
    return centres, [float(values[part].mean()) for part in groups]
