"""The charts of detection: precision against recall, and AP against how often a category was seen in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from cvpods_ext.report.charts import Axis, chart, colour, polyline, x_of, y_of

PERCENT_TICKS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)


def precision_recall(curves: Sequence[np.ndarray | None]) -> str:
    """One line for each experiment: precision (R,) in [0, 1] at evenly spaced recall, None where nothing counts."""
    x, y = Axis("recall %", 0, 100, PERCENT_TICKS), Axis("precision %", 0, 100, PERCENT_TICKS)
    marks = []
    for position, curve in enumerate(curves):
        if curve is None:
            continue
        recall = np.linspace(0, 100, len(curve))
        points = ((x_of(x, r), y_of(y, 100 * p)) for r, p in zip(recall, curve.tolist(), strict=True))
        marks.append(polyline(position, points))
    return chart(x, y, marks, "precision against recall")


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
                f'<circle data-run="{position}" cx="{x_of(x, count):.1f}" cy="{y_of(y, value):.1f}" r="3" '
                f'fill="{tone}"><title>{title}</title></circle>'
            )
        centres, means = running_mean(counts[annotated], values[annotated])
        marks.append(polyline(position, ((x_of(x, c), y_of(y, m)) for c, m in zip(centres, means, strict=True))))
    return chart(x, y, marks, "AP against training images")


def running_mean(counts: np.ndarray, values: np.ndarray, bins: int = 8) -> tuple[list[float], list[float]]:
    """Mean value in `bins` groups of equal size by count, at the geometric mean of the group's counts."""
    order = np.argsort(counts, kind="stable")
    groups = [part for part in np.array_split(order, min(bins, len(order))) if len(part)] if len(order) else []
    centres = [float(np.exp(np.log(np.maximum(counts[part], 1)).mean())) for part in groups]
    return centres, [float(values[part].mean()) for part in groups]
