"""Charts as inline SVG: axes, and marks of several experiments, each in its colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's palette, distinguishable with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#444444")
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
