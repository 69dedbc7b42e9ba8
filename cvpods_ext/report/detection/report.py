"""What detection adds to tables: intervals from resampled splits, curves, and pictures of errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.detection.metrics import METRICS
from cvpods_ext.report.table import Table, to_csv
from cvpods_ext.report.task_report import Details, PagePart, Request, TaskReport
from cvpods_ext.runtime.files import write_text
from cvpods_ext.runtime.outputs import check_output_file

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

    from cvpods_ext.evaluation.detection.protocol import Criteria
    from cvpods_ext.evaluation.detection.report_data import ReportData


class DetectionReport(TaskReport):
    """Of detection and instance segmentation."""

    def add_flags(self, flags: _ArgumentGroup) -> Sequence[str]:
        """--iou and --area: other criteria than the official ones; --categories: all of them as a file."""
        flags.add_argument("--iou", type=float, nargs="+", metavar="T", help="intervals of the AP at these IoUs")
        flags.add_argument(
            "--area", type=float, nargs=2, metavar=("LOW", "HIGH"), help="intervals for objects of this size in pixels"
        )
        flags.add_argument(
            "--categories", type=Path, metavar="FILE", help="CSV: AP, difference, interval and counts of every category"
        )
        return "iou", "area", "categories"

    def open(self, request: Request) -> Details:
        """Annotations of the test set, and which detections are on disk. Raises ConfigError or DataError."""
        from cvpods_ext.evaluation.detection.report_data import open_data

        check_output_file("--categories", request.options.get("categories"), (".csv",))
        family = METRICS.family(request.family)
        if family.name != matched_by(request.family):
            raise ConfigError(f"intervals and page are of AP, not of {family.title}: --task {matched_by(family.name)}")
        data = open_data(request.experiment, masks=request.family != "bbox")
        return DetectionDetails(request, data)


class DetectionDetails(Details):
    """Match tables of all runs that have their detections on disk."""

    def __init__(self, request: Request, data: ReportData) -> None:
        self.request, self.data = request, data

    def intervals(self) -> list[Table]:
        """Intervals of AP and its frequency groups, differences, and categories. DataError without detections."""
        from cvpods_ext.report.detection.category_table import category_table
        from cvpods_ext.report.detection.intervals import Drawn, tables_of
        from cvpods_ext.report.detection.sources import runs_to_compare

        request, gt, criteria = self.request, self.data.gt, self._criteria()
        found = runs_to_compare(request.entries, gt, request.family, criteria)
        if not found:
            raise DataError("none of these results has its detections on disk any more; run pods_test again")
        title = f"{request.title}, {criteria.describe()}" if criteria else request.title
        made = Drawn.of(found, request.reference, request.resamples)
        if place := request.options.get("categories"):
            counts = self.data.train_image_counts
            rows = (made.labels, made.resampled, made.base, made.matches, counts, gt.federated)
            write_text(place, to_csv(category_table(title, *rows)))
        return tables_of(title, made, gt.federated)

    def page(self) -> PagePart:
        """Curves, and a table of categories with pictures of errors."""
        from cvpods_ext.report.detection.page import page_part
        from cvpods_ext.report.detection.sources import page_runs

        runs = page_runs(self.request.entries, self.data.gt, self.request.family)
        return page_part(runs, self.data.image_path, self.data.train_image_counts)

    def _criteria(self) -> Criteria | None:
        """What --iou and --area ask for, None for the official criteria."""
        from cvpods_ext.evaluation.detection.protocol import AREA_RANGES, OFFICIAL, Criteria

        iou, area = (self.request.options.get(name) for name in ("iou", "area"))
        if iou is None and area is None:
            return None
        return Criteria(tuple(sorted(iou)) if iou else OFFICIAL.thresholds, (tuple(area) if area else AREA_RANGES[0],))


def matched_by(family: str) -> str:
    """The official family whose matches another one is computed from."""
    return family.partition("_")[0]
