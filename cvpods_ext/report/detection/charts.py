"""The chart that only detection has: precision against recall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cvpods_ext.report.charts import PERCENT_TICKS, Axis, chart, polyline, x_of, y_of


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
