"""The scores behind a row of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cvpods_ext.evaluation.classification import scores
from cvpods_ext.evaluation.classification.report_data import ReportData
from cvpods_ext.evaluation.classification.scores import SCORES, TopScores
from cvpods_ext.report.predictions_on_disk import with_predictions
from cvpods_ext.report.runs import Entry


@dataclass(frozen=True)
class ScoredRuns:
    """An experiment, its label, and the scores of its runs."""

    label: str
    runs: Sequence[TopScores]


def runs_of(entries: Sequence[Entry], data: ReportData) -> list[ScoredRuns]:
    """The scores of all runs that are still on disk."""
    photos = data.photos
    return [
        ScoredRuns(label, [scores.read(folder, len(photos), len(photos.classes)) for folder in folders])
        for label, _, folders in with_predictions(entries, SCORES, photos.sha256(), photos.name)
    ]
