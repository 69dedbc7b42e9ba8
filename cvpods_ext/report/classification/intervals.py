"""Tables of significance of accuracies."""

from __future__ import annotations

from collections.abc import Sequence

from cvpods_ext.evaluation.classification.report_data import ReportData
from cvpods_ext.evaluation.classification.significance import compare, intervals, resample
from cvpods_ext.evaluation.intervals import class_effects
from cvpods_ext.report.classification.sources import ScoredRuns
from cvpods_ext.report.interval_tables import difference_table, effect_table, interval_table, reference_position
from cvpods_ext.report.table import Table
from cvpods_ext.runtime.progress import track

METHOD = "nominal 95 % intervals, bootstrap of {} resamples over images, and over seeds where there are several"
WORDS = ("class", "classes", "top1")


def interval_tables(
    title: str, compared: Sequence[ScoredRuns], data: ReportData, reference: str = "", resamples: int = 1000
) -> list[Table]:
    """Intervals of every experiment; for two or more also all differences to one of them, and what caused them."""
    labels = [one.label for one in compared]
    base = reference_position(labels, reference)
    method, groups = METHOD.format(resamples), data.groups
    drawn = [resample(one.runs, data.photos.labels, groups, resamples) for one in track(compared, "resampling")]
    metrics = list(drawn[0].points)
    found = [(label, intervals(one)) for label, one in zip(labels, drawn, strict=True)]
    tables = [interval_table(title, found, metrics, method)]
    others = [i for i in range(len(labels)) if i != base]
    if not others:
        return tables
    differences = [(labels[i], compare(drawn[base], drawn[i])) for i in others]
    tables.append(difference_table(title, labels[base], differences, metrics, method))
    for i in others:
        effects = class_effects(drawn[base].classes, drawn[i].classes)
        tables.append(effect_table(title, (labels[base], labels[i]), effects, data.names, groups.tolist(), WORDS))
    return tables
