"""From a row of the comparison to the detections behind it, matched anew or from the cached match table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cvpods_ext.config.experiment import output_folder
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, Criteria
from cvpods_ext.evaluation.detection.selection import limit_of, select_annotations
from cvpods_ext.evaluation.detection.shards import read_shard_metadata, shard_files
from cvpods_ext.report.detection.error_examples import MatchedRun
from cvpods_ext.report.detection.intervals import Compared
from cvpods_ext.report.detection.page import PageRun
from cvpods_ext.report.runs import Entry, labels

logger = logging.getLogger(__name__)


def shards_of(entry: Entry) -> list[Path]:
    """Folders of the runs' detections, as far as they are still on disk and by the weights that were tested."""
    folders = []
    for path, run in zip(entry.paths, entry.runs, strict=True):
        outputs = (path.parent, output_folder(path.parent))
        places = [output / "inference" / entry.dataset for output in outputs]
        folders += [folder for folder in places if _are_of(folder, run.provenance.get("weights_sha256"))][:1]
    return folders


def _are_of(folder: Path, weights_sha256: str | None) -> bool:
    """Whether detections lie there that these weights made, or of which nobody knows otherwise."""
    files = shard_files(folder)
    made_by = {read_shard_metadata(path).settings.get("weights_sha256") for path in files}
    return bool(files) and (weights_sha256 is None or made_by <= {weights_sha256, None})


def with_detections(entries: Sequence[Entry], gt: GroundTruth) -> list[tuple[str, Entry, list[Path]]]:
    """Label, entry and shards of what can be evaluated on this ground truth; a warning says what cannot and why."""
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


def runs_to_compare(
    entries: Sequence[Entry], gt: GroundTruth, matched_by: str, criteria: Criteria | None = None
) -> list[Compared]:
    """What the intervals are computed from: the match tables of all runs, by default under the official criteria."""
    return [
        Compared(label, [_table(entry, gt, folder, matched_by, criteria or OFFICIAL) for folder in folders])
        for label, entry, folders in with_detections(entries, gt)
    ]


def page_runs(entries: Sequence[Entry], gt: GroundTruth, matched_by: str) -> list[PageRun]:
    """What the page shows of each entry: curves and errors of its first run."""
    runs = []
    counted = select_annotations(gt, matched_by)
    for label, entry, folders in with_detections(entries, gt):
        matches = _table(entry, gt, folders[0], matched_by)
        run = MatchedRun(counted, folders[0], matches, matched_by)
        runs.append(PageRun(label, run, curves(matches.evaluated, matches.objects, matches.num_categories)))
    return runs


def _table(entry: Entry, gt: GroundTruth, folder: Path, matched_by: str, criteria: Criteria = OFFICIAL) -> MatchTable:
    """The match table of a run, with as many detections as the entry's numbers count."""
    limit = limit_of(gt.federated, int(entry.conditions.get("max_detections", 300)))
    return match_table(gt, folder, matched_by, limit, criteria=criteria)
