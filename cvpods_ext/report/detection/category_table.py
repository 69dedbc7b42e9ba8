"""Every category in a row: its AP in each experiment, the differences, their intervals, its group and its counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.protocol import GROUPS
from cvpods_ext.evaluation.detection.significance import Resampled
from cvpods_ext.evaluation.intervals import PERCENT, difference, interval
from cvpods_ext.report.table import NO_GROUND_TRUTH, UNMEASURED, Cell, Table

_METHOD = "95 % intervals, bootstrap over images; of {} categories about one in twenty excludes zero by chance alone"


def category_table(
    title: str,
    labels: Sequence[str],
    drawn: Sequence[Resampled],
    base: int,
    matches: MatchTable,
    image_counts: np.ndarray | None,
    federated: bool,
) -> Table:
    """A row for each category; with two or more experiments those that lose most stand first.

    `base` is the position that others are compared with, `image_counts` (K,) are training images or None.
    """
    others = [i for i in range(len(labels)) if i != base]
    objects = object_counts(matches)
    header = ["category", "group", "training images", "objects", *(f"AP {label}" for label in labels)]
    for i in others:
        header += [f"difference {labels[i]}", f"verdict {labels[i]}"]
    rows = []
    for k, name in enumerate(matches.category_names):
        group = GROUPS[matches.frequency[k]] if federated else UNMEASURED
        row = [Cell(name), Cell(group), _count(image_counts, k), _count(objects, k)]
        row += [_ap(one, k) for one in drawn]
        for i in others:
            row += _change(drawn[base], drawn[i], k)
        rows.append(tuple(row))
    if others:
        at = 4 + len(labels)
        rows.sort(key=lambda row: np.inf if row[at].value is None else row[at].value)
    return Table(f"{title}, categories", tuple(header), tuple(rows), 2, (_METHOD.format(len(rows)),))


def object_counts(matches: MatchTable) -> np.ndarray:
    """(K,) annotated objects of each category that the official AP counts."""
    objects = matches.objects
    counted = objects.category[(objects.counted & np.uint64(1)) > 0]
    return np.bincount(counted, minlength=matches.num_categories)


def _count(counts: np.ndarray | None, k: int) -> Cell:
    return Cell(UNMEASURED) if counts is None else Cell(f"{int(counts[k]):,}", float(counts[k]))


def _ap(one: Resampled, k: int) -> Cell:
    found = interval(one.point[:, k], one.aps[:, k], bounds=PERCENT)
    if found is None:
        return Cell(NO_GROUND_TRUTH)
    return Cell(f"{found.value:.1f}", found.value, low=found.low, high=found.high)


def _change(first: Resampled, second: Resampled, k: int) -> tuple[Cell, Cell]:
    change = interval(second.point[:, k] - first.point[:, k].mean(), second.aps[:, k] - first.aps[:, k])
    if change is None:
        return Cell(NO_GROUND_TRUTH), Cell(UNMEASURED)
    value = Cell(f"{change.value:+.1f}", change.value, low=change.low, high=change.high)
    return value, Cell(difference(change).verdict)
