"""Tables of significance: intervals, differences with a verdict, and the classes behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.intervals import ClassEffect, Difference, Interval, Resampled, class_effects
from cvpods_ext.report.table import NO_GROUND_TRUTH, UNMEASURED, Cell, Table

CLASSES_SHOWN = 10
PLAIN = "plain"  # in the name of a model without any long-tail method
INTERVALS, DIFFERENCES = ", intervals", ", differences to "  # in titles
DIGITS = 1  # of percent; more would show noise


def reference_position(labels: Sequence[str], reference: str) -> int:
    """The position of the label that others are compared with, "" for the natural one.

    That is the only plain model, by its name or because all of its name's words are in every other one; else the first.
    ConfigError for an unknown label.
    """
    if reference and reference not in labels:
        raise ConfigError(f"--reference {reference} is none of the compared experiments: {', '.join(labels)}")
    if reference:
        return labels.index(reference)
    words = [set(label.split(" ")[0].split(".")) for label in labels]
    plain = [i for i, own in enumerate(words) if PLAIN in own] or [
        i for i, own in enumerate(words) if all(own <= other for other in words)
    ]
    return plain[0] if len(plain) == 1 else 0


def interval_table(
    title: str, found: Sequence[tuple[str, Mapping[str, Interval | None]]], metrics: Sequence[str], method: str
) -> Table:
    """A row for each label with its intervals; `method` says how they were made."""
    return Table(
        title=f"{title}{INTERVALS}",
        header=("experiment", *metrics),
        rows=tuple((Cell(label), *(_cell(values[name]) for name in metrics)) for label, values in found),
        notes=(method,),  # no best is marked: the differences say whether there is one
    )


def difference_table(
    title: str,
    base: str,
    found: Sequence[tuple[str, Mapping[str, Difference | None]]],
    metrics: Sequence[str],
    method: str,
) -> Table:
    """A row for each label and metric with the difference to `base`."""
    rows = []
    for label, differences in found:
        for name in metrics:
            one = differences[name]
            if one is None:
                rows.append((Cell(label), Cell(name), Cell(NO_GROUND_TRUTH), Cell(UNMEASURED), Cell(UNMEASURED)))
                continue
            resolvable = Cell(f"{one.resolvable:.{DIGITS}f}", one.resolvable)
            rows.append((Cell(label), Cell(name), Cell(one.verdict), _cell(one.interval, sign="+"), resolvable))
    return Table(
        title=f"{title}{DIFFERENCES}{base}",
        header=("experiment", "metric", "verdict", "difference", "resolvable"),
        rows=tuple(rows),
        text_columns=3,
        notes=(
            f"{method}, the same resamples for both sides of a difference",
            "resolvable: the difference that this split would show in four of five repetitions",
        ),
    )


def effect_table(
    title: str,
    labels: tuple[str, str],
    effects: Sequence[ClassEffect],
    names: Sequence[str],
    groups: Sequence[str],
    words: tuple[str, str, str],
) -> Table:
    """The classes whose change moves the mean most. `words` are a class, several classes, and their value."""
    one, several, value = words
    gains, losses = sum(each.effect > 0 for each in effects), sum(each.effect < 0 for each in effects)
    rows = [
        (
            Cell(names[each.category]),
            Cell(groups[each.category]),
            Cell(f"{each.before:.{DIGITS}f}", each.before),
            Cell(f"{each.after:.{DIGITS}f}", each.after),
            Cell(f"{each.effect:+.2f}", each.effect),
        )
        for each in effects[:CLASSES_SHOWN]
    ]
    return Table(
        title=f"{title}, {several} from {labels[0]} to {labels[1]}",
        header=(one, "group", f"{value} before", f"{value} after", "effect on the mean"),
        rows=tuple(rows),
        text_columns=2,
        notes=(f"{gains} {several} gain, {losses} lose; the {len(rows)} of largest effect are shown",),
    )


def tables_of(
    title: str,
    resampled: Sequence[tuple[str, Resampled]],
    metrics: Sequence[str],
    reference: str,
    method: str,
    classes: tuple[Sequence[str], Sequence[str], tuple[str, str, str]],
) -> list[Table]:
    """Intervals of every experiment; for two or more also all differences to one of them, and what caused them.

    `classes` are their names, their groups, and words as in `effect_table`.
    """
    labels = [label for label, _ in resampled]
    base = reference_position(labels, reference)
    tables = [interval_table(title, [(label, one.intervals()) for label, one in resampled], metrics, method)]
    others = [i for i in range(len(labels)) if i != base]
    if not others:
        return tables
    first = resampled[base][1]
    differences = [(labels[i], resampled[i][1].differences_to(first)) for i in others]
    tables.append(difference_table(title, labels[base], differences, metrics, method))
    names, groups, words = classes
    for i in others:
        effects = class_effects(first.classes, resampled[i][1].classes)
        tables.append(effect_table(title, (labels[base], labels[i]), effects, names, groups, words))
    return tables


def _cell(interval: Interval | None, sign: str = "") -> Cell:
    if interval is None:
        return Cell(NO_GROUND_TRUTH)
    value, low, high = (f"{v:{sign}.{DIGITS}f}" for v in (interval.value, interval.low, interval.high))
    return Cell(f"{value} [{low}, {high}]", interval.value, low=interval.low, high=interval.high)
