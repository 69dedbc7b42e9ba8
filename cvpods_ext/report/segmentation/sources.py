"""The label maps behind a row of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvpods_ext.evaluation.segmentation.evaluate import Counted
from cvpods_ext.evaluation.segmentation.label_maps import LABEL_MAPS
from cvpods_ext.evaluation.segmentation.report_data import ReportData
from cvpods_ext.report.predictions_on_disk import with_predictions
from cvpods_ext.report.runs import Entry


@dataclass(frozen=True)
class CountedRuns:
    """An experiment, its label, the folders of its runs' label maps, and what they come to."""

    label: str
    folders: Sequence[Path]
    runs: Sequence[Counted]


def runs_of(entries: Sequence[Entry], family: str, data: ReportData) -> list[CountedRuns]:
    """The runs whose label maps are still on disk."""
    return [
        CountedRuns(label, folders, [data.count(folder, family) for folder in folders])
        for label, _, folders in with_predictions(entries, LABEL_MAPS, data.sha256, data.images.name)
    ]
