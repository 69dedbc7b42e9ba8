"""Tables of significance of IoUs and accuracies."""

from __future__ import annotations

from collections.abc import Sequence

from cvpods_ext.evaluation.segmentation.metrics import GROUPS, METRICS
from cvpods_ext.evaluation.segmentation.report_data import ReportData, resample
from cvpods_ext.report.interval_tables import tables_of
from cvpods_ext.report.segmentation.sources import CountedRuns
from cvpods_ext.report.table import Table
from cvpods_ext.runtime.progress import track

METHOD = "nominal 95 % intervals, bootstrap of {} resamples over images, and over seeds where there are several"
WORDS = ("class", "classes", "IoU")


def interval_tables(
    title: str,
    compared: Sequence[CountedRuns],
    family: str,
    data: ReportData,
    reference: str = "",
    resamples: int = 1000,
) -> list[Table]:
    """Intervals, differences to the label `reference` ("" is the first), and the classes behind them."""
    drawn = [(one.label, resample(one.runs, family, data.groups, resamples)) for one in track(compared, "resampling")]
    groups = [GROUPS[group].removesuffix(" classes") for group in data.groups.tolist()]
    metrics = METRICS.family(family).columns[0]
    return tables_of(title, drawn, metrics, reference, METHOD.format(resamples), (data.names, groups, WORDS))
