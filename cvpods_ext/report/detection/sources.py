"""From a row of the comparison to the detections behind it, matched anew or from the cached match table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, Criteria
from cvpods_ext.evaluation.detection.selection import limit_of, select_annotations
from cvpods_ext.evaluation.detection.shards import DETECTIONS
from cvpods_ext.report.detection.error_examples import MatchedRun
from cvpods_ext.report.detection.intervals import Compared
from cvpods_ext.report.detection.page import PageRun
from cvpods_ext.report.predictions_on_disk import with_predictions
from cvpods_ext.report.runs import Entry


def runs_to_compare(
    entries: Sequence[Entry], gt: GroundTruth, matched_by: str, criteria: Criteria | None = None
) -> list[Compared]:
    """What the intervals are computed from: the match tables of all runs, by default under the official criteria."""
    return [
        Compared(label, [_table(entry, gt, folder, matched_by, criteria or OFFICIAL) for folder in folders])
        for label, entry, folders in with_predictions(entries, DETECTIONS, gt.sha256, str(gt.path))
    ]


def page_runs(entries: Sequence[Entry], gt: GroundTruth, matched_by: str) -> list[PageRun]:
    """What the page shows of each entry: curves and errors of its first run."""
    runs = []
    counted = select_annotations(gt, matched_by)
    for label, entry, folders in with_predictions(entries, DETECTIONS, gt.sha256, str(gt.path)):
        matches = _table(entry, gt, folders[0], matched_by)
        run = MatchedRun(counted, folders[0], matches, matched_by)
        runs.append(PageRun(label, run, curves(matches.evaluated, matches.objects, matches.num_categories)))
    return runs


def _table(entry: Entry, gt: GroundTruth, folder: Path, matched_by: str, criteria: Criteria = OFFICIAL) -> MatchTable:
    """The match table of a run, with as many detections as the entry's numbers count."""
    limit = limit_of(gt.federated, int(entry.conditions.get("max_detections", 300)))
    return match_table(gt, folder, matched_by, limit, criteria=criteria)
