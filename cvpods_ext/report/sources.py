"""From a row of the comparison to the detections behind it, judged anew or from the cached match table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cvpods_ext.config.experiment import output_folder
from cvpods_ext.evaluation.detection import detections
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, Criteria
from cvpods_ext.evaluation.detection.selection import limit_of, select_annotations
from cvpods_ext.report.certainty import Candidate
from cvpods_ext.report.evidence import Judgement
from cvpods_ext.report.html import PageRun
from cvpods_ext.report.runs import Entry, labels

logger = logging.getLogger(__name__)


def shards_of(entry: Entry) -> list[Path]:
    """Folders of detections of the entry's runs, as far as they are still on disk."""
    folders = []
    for path in entry.paths:
        outputs = (path.parent, output_folder(path.parent))
        candidates = [output / "inference" / entry.dataset for output in outputs]
        folders += [folder for folder in candidates if detections.shard_files(folder)][:1]
    return folders


def with_detections(entries: Sequence[Entry], gt: GroundTruth) -> list[tuple[str, Entry, list[Path]]]:
    """Label, entry and shards of what can be judged on this very ground truth; a warning says what cannot and why."""
    usable = []
    for entry, label in zip(entries, labels(entries), strict=True):
        folders = shards_of(entry)
        if not folders:
            logger.warning("%s has no detections on disk: only its results.json is shown", label)
        elif entry.conditions.get("data_sha256", gt.sha256) != gt.sha256:
            logger.warning(
                "%s was measured on other annotations than %s: only its results.json is shown", label, gt.path
            )
        else:
            if len(folders) < len(entry.runs):
                logger.warning("%s: only %d of %d runs have detections on disk", label, len(folders), len(entry.runs))
            usable.append((label, entry, folders))
    return usable


def candidates(
    entries: Sequence[Entry], gt: GroundTruth, task: str, criteria: Criteria | None = None
) -> list[Candidate]:
    """What the intervals are computed from: the match tables of all runs, by default under the official criteria."""
    return [
        Candidate(label, [_table(entry, gt, folder, task, criteria or OFFICIAL) for folder in folders])
        for label, entry, folders in with_detections(entries, gt)
    ]


def page_runs(entries: Sequence[Entry], gt: GroundTruth, task: str) -> list[PageRun]:
    """What the page shows of each entry: curves and mistakes of its first run."""
    runs = []
    counted = select_annotations(gt, task)
    for label, entry, folders in with_detections(entries, gt):
        matches = _table(entry, gt, folders[0], task)
        judgement = Judgement(counted, folders[0], matches, task)
        runs.append(PageRun(label, judgement, curves(matches.judged, matches.objects, matches.num_categories)))
    return runs


def _table(entry: Entry, gt: GroundTruth, folder: Path, task: str, criteria: Criteria = OFFICIAL) -> MatchTable:
    """The match table of a run, with as many detections as the entry's numbers count."""
    limit = limit_of(gt.federated, int(entry.conditions.get("max_detections", 300)))
    return match_table(gt, folder, task, limit, criteria=criteria)
