"""From a row of the comparison to the detections behind it, judged anew or from the cached match table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cvpods_ext.config.experiment import output_folder
from cvpods_ext.evaluation import detections
from cvpods_ext.evaluation.curves import curves
from cvpods_ext.evaluation.ground_truth import GroundTruth
from cvpods_ext.evaluation.matches import match_table
from cvpods_ext.evaluation.selection import COCO_LIMIT, Limit, select_annotations
from cvpods_ext.report.evidence import Judgement
from cvpods_ext.report.html import PageRun
from cvpods_ext.report.runs import Entry, labels

logger = logging.getLogger(__name__)


def shards_of(entry: Entry) -> Path | None:
    """The folder of detections of the entry's first run that still has one."""
    for path in entry.paths:
        for output in (path.parent, output_folder(path.parent)):
            folder = output / "inference" / entry.dataset
            if detections.shard_files(folder):
                return folder
    return None


def limit_of(entry: Entry, federated: bool) -> Limit:
    """How many detections the entry's numbers count."""
    return Limit(per_image=int(entry.conditions.get("max_detections", 300))) if federated else COCO_LIMIT


def page_runs(entries: Sequence[Entry], gt: GroundTruth, task: str) -> list[PageRun]:
    """What the page shows of each entry that has detections on disk and was measured on this very ground truth."""
    runs = []
    for entry, label in zip(entries, labels(entries), strict=True):
        folder = shards_of(entry)
        if folder is None:
            logger.warning("%s has no detections on disk: it is in the table only", label)
            continue
        if entry.conditions.get("data_sha256", gt.sha256) != gt.sha256:
            logger.warning("%s was measured on other annotations than %s: it is in the table only", label, gt.path)
            continue
        matches = match_table(gt, folder, task, limit_of(entry, gt.federated))
        judgement = Judgement(select_annotations(gt), detections.read(folder, masks=task == "segm"), matches, task)
        runs.append(PageRun(label, judgement, curves(matches.judged, matches.objects, matches.num_categories)))
    return runs
