"""Two charts as inline SVG: precision against recall, and AP against how often a category was seen in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

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


PERCENT_TICKS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)


def precision_recall(curves: Sequence[np.ndarray | None]) -> str:
    """One line for each experiment: precision (R,) in [0, 1] at evenly spaced recall, None where nothing counts."""
    x, y = Axis("recall %", 0, 100, PERCENT_TICKS), Axis("precision %", 0, 100, PERCENT_TICKS)
    marks = []
    for position, curve in enumerate(curves):
        if curve is None:
            continue
        recall = np.linspace(0, 100, len(curve))
        points = " ".join(f"{_x(x, r):.1f},{_y(y, 100 * p):.1f}" for r, p in zip(recall, curve.tolist(), strict=True))
        marks.append(f'<polyline data-run="{position}" points="{points}" stroke="{colour(position)}"/>')
    return _chart(x, y, marks, "precision against recall")


def ap_against_frequency(counts: np.ndarray, ap: Sequence[np.ndarray], names: Sequence[str]) -> str:
    """A dot for each category and experiment, and each experiment's running mean over categories of similar counts.

    counts (K,) training images; each of `ap` (K,) in percent, NaN without ground truth.
    """
    top = float(max(10, 10 ** math.ceil(math.log10(max(int(counts.max()), 1)))))
    ticks = tuple(10.0**power for power in range(round(math.log10(top)) + 1))
    x = Axis("training images", 1, top, ticks, log=True)
    known = [float(value) for values in ap for value in values[np.isfinite(values)]]
    steps = max(1, math.ceil(max(known, default=0.0) / 10))
    y = Axis("AP %", 0, 10.0 * steps, tuple(10.0 * step for step in range(steps + 1)))
    marks = []
    for position, values in enumerate(ap):
        annotated = np.flatnonzero(np.isfinite(values))
        tone = colour(position)
        for k in annotated.tolist():
            count, value = int(counts[k]), float(values[k])
            title = escape(f"{names[k]}: {count} training images, AP {value:.1f}")
            marks.append(
                f'<circle data-run="{position}" cx="{_x(x, count):.1f}" cy="{_y(y, value):.1f}" r="3" '
                f'fill="{tone}"><title>{title}</title></circle>'
            )
        centres, means = running_mean(counts[annotated], values[annotated])
        points = " ".join(f"{_x(x, c):.1f},{_y(y, m):.1f}" for c, m in zip(centres, means, strict=True))
        marks.append(f'<polyline data-run="{position}" points="{points}" stroke="{tone}"/>')
    return _chart(x, y, marks, "AP against training images")


def running_mean(counts: np.ndarray, values: np.ndarray, bins: int = 8) -> tuple[list[float], list[float]]:
    """Mean value in `bins` groups of equal size by count, at the geometric mean of the group's counts."""
    order = np.argsort(counts, kind="stable")
    groups = [part for part in np.array_split(order, min(bins, len(order))) if len(part)] if len(order) else []
    centres = [float(np.exp(np.log(np.maximum(counts[part], 1)).mean())) for part in groups]
    return centres, [float(values[part].mean()) for part in groups]


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _chart(x: Axis, y: Axis, marks: Sequence[str], label: str) -> str:
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{middle_x}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.title)}</text>')
    turn = f'transform="rotate(-90 12 {middle_y})"'
    parts.append(f'<text x="12" y="{middle_y}" text-anchor="middle" {turn}>{escape(y.title)}</text>')
    return "".join([*parts, *marks, "</svg>"])
