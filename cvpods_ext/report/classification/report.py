"""What image classification adds to tables: intervals from resampled images, confusions, and pictures of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.report.table import Table
from cvpods_ext.report.task_report import Details, PagePart, Request, TaskReport

if TYPE_CHECKING:
    from cvpods_ext.report.classification.sources import TestSet


class ClassificationReport(TaskReport):
    """Of image classification."""

    def open(self, request: Request) -> Details:
        """The files and classes of the test set. Raises ConfigError or DataError."""
        from cvpods_ext.report.classification.sources import open_test_set

        config = request.experiment.config
        if not isinstance(config, ClassificationConfig):
            raise ConfigError(f"{request.experiment.folder} is no experiment in image classification")
        return ClassificationDetails(request, open_test_set(config, request.experiment.folder))


class ClassificationDetails(Details):
    """The scores of all runs that have theirs on disk."""

    def __init__(self, request: Request, test_set: TestSet) -> None:
        self.request, self.test_set = request, test_set

    def intervals(self) -> list[Table]:
        """Intervals of all accuracies, differences, and classes. DataError without scores."""
        from cvpods_ext.report.classification.intervals import interval_tables
        from cvpods_ext.report.classification.sources import runs_of

        found = runs_of(self.request.entries, self.test_set)
        if not found:
            raise DataError("none of these results has its scores on disk any more; run pods_test again")
        return interval_tables(self.request.title, found, self.test_set, self.request.reference, self.request.resamples)

    def page(self) -> PagePart:
        """Accuracy against training images, confusions, and a table of classes with pictures of errors."""
        from cvpods_ext.report.classification.page import page_part
        from cvpods_ext.report.classification.sources import runs_of

        return page_part(runs_of(self.request.entries, self.test_set), self.test_set)
