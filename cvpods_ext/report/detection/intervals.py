"""Tables of significance: intervals, differences with a verdict, and the categories behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection.bootstrap import Draws
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.metrics import BY_FREQUENCY
from cvpods_ext.evaluation.detection.protocol import GROUPS
from cvpods_ext.evaluation.detection.significance import (
    Interval,
    Resampled,
    category_effects,
    compare,
    draws_for,
    intervals,
    resample,
)
from cvpods_ext.report.table import NO_GROUND_TRUTH, UNMEASURED, Cell, Table
from cvpods_ext.runtime.progress import track

CATEGORIES_SHOWN = 10
DIGITS = 1  # of AP in percent; more would show noise
METHOD = "nominal 95 % intervals, bootstrap of {} resamples over images and over categories within their group"


@dataclass(frozen=True)
class Compared:
    """An experiment to compare: its label and the match tables of its runs."""

    label: str
    runs: Sequence[MatchTable]


def interval_tables(
    title: str, compared: Sequence[Compared], reference: str = "", resamples: int = 1000, federated: bool = True
) -> list[Table]:
    """Intervals of every experiment; for two or more also all differences to one of them, and what caused them.

    `reference` is a label, "" is the first. All must have been evaluated on the same split.
    """
    labels = [one.label for one in compared]
    if reference and reference not in labels:
        raise ConfigError(f"--reference {reference} is none of the compared experiments: {', '.join(labels)}")
    draws = draws_for(compared[0].runs[0], resamples)
    drawn = [resample(one.runs, draws) for one in track(compared, "resampling")]
    metrics = BY_FREQUENCY if federated else BY_FREQUENCY[:1]
    tables = [_interval_table(title, labels, drawn, draws, metrics)]
    base = labels.index(reference) if reference else 0
    others = [i for i in range(len(labels)) if i != base]
    if others:
        tables.append(_difference_table(title, labels, drawn, draws, base, others, metrics))
        names, frequency = compared[0].runs[0].category_names, compared[0].runs[0].frequency
        for i in others:
            groups = [GROUPS[group] for group in frequency] if federated else [""] * len(names)
            tables.append(_category_table(title, (labels[base], labels[i]), (drawn[base], drawn[i]), names, groups))
    return tables


def _interval_table(
    title: str, labels: Sequence[str], drawn: Sequence[Resampled], draws: Draws, metrics: Sequence[str]
) -> Table:
    rows = []
    for label, resampled in zip(labels, drawn, strict=True):
        found = intervals(resampled, draws)
        rows.append((Cell(label), *(_interval_cell(found[name]) for name in metrics)))
    return Table(
        title=f"{title}, intervals",
        header=("experiment", *metrics),
        rows=tuple(rows),  # no best is marked: the differences below say whether there is one
        notes=(METHOD.format(len(draws.images)),),
    )


def _difference_table(
    title: str,
    labels: Sequence[str],
    drawn: Sequence[Resampled],
    draws: Draws,
    base: int,
    others: Sequence[int],
    metrics: Sequence[str],
) -> Table:
    rows = []
    for i in others:
        differences = compare(drawn[base], drawn[i], draws)
        for name in metrics:
            difference = differences[name]
            if difference is None:
                rows.append((Cell(labels[i]), Cell(name), Cell(NO_GROUND_TRUTH), Cell(UNMEASURED), Cell(UNMEASURED)))
                continue
            rows.append(
                (
                    Cell(labels[i]),
                    Cell(name),
                    Cell(difference.verdict),
                    _interval_cell(difference.interval, sign="+"),
                    Cell(f"{difference.resolvable:.{DIGITS}f}", difference.resolvable),
                )
            )
    return Table(
        title=f"{title}, differences to {labels[base]}",
        header=("experiment", "metric", "verdict", "difference", "resolvable"),
        rows=tuple(rows),
        text_columns=3,
        notes=(
            METHOD.format(len(draws.images)) + ", the same resamples for both sides of a difference",
            "resolvable: the difference that this split would show in four of five repetitions",
        ),
    )


def _category_table(
    title: str,
    labels: tuple[str, str],
    drawn: tuple[Resampled, Resampled],
    names: Sequence[str],
    groups: Sequence[str],
) -> Table:
    effects = category_effects(*drawn)
    gains, losses = sum(one.effect > 0 for one in effects), sum(one.effect < 0 for one in effects)
    rows = [
        (
            Cell(names[one.category]),
            Cell(groups[one.category]),
            Cell(f"{one.before:.{DIGITS}f}", one.before),
            Cell(f"{one.after:.{DIGITS}f}", one.after),
            Cell(f"{one.effect:+.2f}", one.effect),
        )
        for one in effects[:CATEGORIES_SHOWN]
    ]
    return Table(
        title=f"{title}, categories from {labels[0]} to {labels[1]}",
        header=("category", "group", "AP before", "AP after", "effect on the mean"),
        rows=tuple(rows),
        text_columns=2,
        notes=(f"{gains} categories gain, {losses} lose; the {len(rows)} of largest effect are shown",),
    )


def _interval_cell(interval: Interval | None, sign: str = "") -> Cell:
    if interval is None:
        return Cell(NO_GROUND_TRUTH)
    value, low, high = (f"{v:{sign}.{DIGITS}f}" for v in (interval.value, interval.low, interval.high))
    return Cell(f"{value} [{low}, {high}]", interval.value)
