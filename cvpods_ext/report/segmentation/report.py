"""What semantic segmentation adds to tables: intervals from resampled images, confusions, and pictures of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.report.table import Table
from cvpods_ext.report.task_report import Details, PagePart, Request, TaskReport

if TYPE_CHECKING:
    from cvpods_ext.evaluation.segmentation.report_data import ReportData
    from cvpods_ext.report.segmentation.sources import CountedRuns


class SegmentationReport(TaskReport):
    """Of semantic segmentation."""

    def open(self, request: Request) -> Details:
        """Images and label maps of the test set. Raises ConfigError or DataError."""
        from cvpods_ext.evaluation.segmentation.report_data import open_data

        config = request.experiment.config
        if not isinstance(config, SegmentationConfig):
            raise ConfigError(f"{request.experiment.folder} is no experiment in semantic segmentation")
        return SegmentationDetails(request, open_data(config, request.experiment.folder))


class SegmentationDetails(Details):
    """The pixels of all runs that have their label maps on disk, counted once."""

    def __init__(self, request: Request, data: ReportData) -> None:
        self.request, self.data = request, data
        self._found: list[CountedRuns] | None = None

    def intervals(self) -> list[Table]:
        """Intervals of the family's metrics, differences, and classes. DataError without label maps."""
        from cvpods_ext.report.segmentation.intervals import interval_tables

        found, request = self._runs(), self.request
        if not found:
            raise DataError("none of these results has its label maps on disk any more; run pods_test again")
        return interval_tables(request.title, found, request.family, self.data, request.reference, request.resamples)

    def page(self) -> PagePart:
        """IoU against training pixels, confusions, and a table of classes with pictures of errors."""
        from cvpods_ext.report.segmentation.page import page_part

        return page_part(self._runs(), self.request.family, self.data)

    def _runs(self) -> list[CountedRuns]:
        from cvpods_ext.report.segmentation.sources import runs_of

        if self._found is None:
            self._found = runs_of(self.request.entries, self.request.family, self.data)
        return self._found
