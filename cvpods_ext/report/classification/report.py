"""What image classification adds to tables: intervals from resampled images, confusions, and pictures of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.report.table import Table
from cvpods_ext.report.task_report import Details, PagePart, Request, TaskReport

if TYPE_CHECKING:
    from cvpods_ext.evaluation.classification.report_data import ReportData


class ClassificationReport(TaskReport):
    """Of image classification."""

    def open(self, request: Request) -> Details:
        """The files and classes of the test set. Raises ConfigError or DataError."""
        from cvpods_ext.evaluation.classification.report_data import open_data

        config = request.experiment.config
        if not isinstance(config, ClassificationConfig):
            raise ConfigError(f"{request.experiment.folder} is no experiment in image classification")
        return ClassificationDetails(request, open_data(config, request.experiment.folder))


class ClassificationDetails(Details):
    """The scores of all runs that have theirs on disk."""

    def __init__(self, request: Request, data: ReportData) -> None:
        self.request, self.data = request, data

    def intervals(self) -> list[Table]:
        """Intervals of all accuracies, differences, and classes. DataError without scores."""
        from cvpods_ext.report.classification.intervals import interval_tables
        from cvpods_ext.report.classification.sources import runs_of

        found = runs_of(self.request.entries, self.data)
        if not found:
            raise DataError("none of these results has its scores on disk any more; run pods_test again")
        return interval_tables(self.request.title, found, self.data, self.request.reference, self.request.resamples)

    def page(self) -> PagePart:
        """Accuracy against training images, confusions, and a table of classes with pictures of errors."""
        from cvpods_ext.report.classification.page import page_part
        from cvpods_ext.report.classification.sources import runs_of

        return page_part(runs_of(self.request.entries, self.data), self.data)
