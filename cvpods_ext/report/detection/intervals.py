"""Tables of significance of AP and its frequency groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cvpods_ext.evaluation.detection.bootstrap import Draws
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.metrics import BY_FREQUENCY
from cvpods_ext.evaluation.detection.protocol import GROUPS
from cvpods_ext.evaluation.detection.significance import (
    Resampled,
    category_effects,
    compare,
    draws_for,
    intervals,
    resample,
)
from cvpods_ext.report.interval_tables import difference_table, effect_table, interval_table, reference_position
from cvpods_ext.report.table import Table
from cvpods_ext.runtime.progress import track

METHOD = "nominal 95 % intervals, bootstrap of {} resamples over images and over categories within their group"
WORDS = ("category", "categories", "AP")


@dataclass(frozen=True)
class Compared:
    """An experiment to compare: its label and the match tables of its runs."""

    label: str
    runs: Sequence[MatchTable]


@dataclass(frozen=True)
class Drawn:
    """Experiments on the same draws, and the position of the one that others are compared with."""

    labels: Sequence[str]
    resampled: Sequence[Resampled]
    draws: Draws
    base: int
    matches: MatchTable  # of the first run: categories and objects of the split

    @classmethod
    def of(cls, compared: Sequence[Compared], reference: str, resamples: int) -> Drawn:
        """Resample all of them; `reference` is a label, "" the natural one. All must share the split."""
        labels = [one.label for one in compared]
        base = reference_position(labels, reference)
        draws = draws_for(compared[0].runs[0], resamples)
        drawn = [resample(one.runs, draws) for one in track(compared, "resampling")]
        return cls(labels, drawn, draws, base, compared[0].runs[0])


def interval_tables(
    title: str, compared: Sequence[Compared], reference: str = "", resamples: int = 1000, federated: bool = True
) -> list[Table]:
    """`tables_of` what is resampled here, see `Drawn.of`."""
    return tables_of(title, Drawn.of(compared, reference, resamples), federated)


def tables_of(title: str, made: Drawn, federated: bool = True) -> list[Table]:
    """Intervals of every experiment; for two or more also all differences to one of them, and what caused them.

    Without frequency groups where the split is not `federated`.
    """
    labels, drawn, draws, base = made.labels, made.resampled, made.draws, made.base
    metrics = BY_FREQUENCY if federated else BY_FREQUENCY[:1]
    method = METHOD.format(len(draws.images))
    found = [(label, intervals(one, draws)) for label, one in zip(labels, drawn, strict=True)]
    tables = [interval_table(title, found, metrics, method)]
    others = [i for i in range(len(labels)) if i != base]
    if not others:
        return tables
    differences = [(labels[i], compare(drawn[base], drawn[i], draws)) for i in others]
    tables.append(difference_table(title, labels[base], differences, metrics, method))
    names, frequency = made.matches.category_names, made.matches.frequency
    groups = [GROUPS[group] for group in frequency] if federated else [""] * len(names)
    for i in others:
        effects = category_effects(drawn[base], drawn[i])
        tables.append(effect_table(title, (labels[base], labels[i]), effects, names, groups, WORDS))
    return tables
