"""Tables of significance of accuracies."""

from __future__ import annotations

from collections.abc import Sequence

from cvpods_ext.evaluation.classification.report_data import ReportData
from cvpods_ext.evaluation.classification.significance import resample
from cvpods_ext.report.classification.sources import ScoredRuns
from cvpods_ext.report.interval_tables import tables_of
from cvpods_ext.report.table import Table
from cvpods_ext.runtime.progress import track

METHOD = "nominal 95 % intervals, bootstrap of {} resamples over images, and over seeds where there are several"
WORDS = ("class", "classes", "top1")


def interval_tables(
    title: str, compared: Sequence[ScoredRuns], data: ReportData, reference: str = "", resamples: int = 1000
) -> list[Table]:
    """Intervals, differences to the label `reference` ("" is the first), and the classes behind them."""
    labels, groups = data.photos.labels, data.groups
    drawn = [(one.label, resample(one.runs, labels, groups, resamples)) for one in track(compared, "resampling")]
    classes = (data.names, groups.tolist(), WORDS)
    return tables_of(title, drawn, list(drawn[0][1].points), reference, METHOD.format(resamples), classes)
