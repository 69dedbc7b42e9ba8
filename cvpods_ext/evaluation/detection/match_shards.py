"""Detections of shards against their ground truth, block by block: the part of the matching that workers share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.detections import read_shard
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_table import Candidates, concatenate, gather
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, needs_masks
from cvpods_ext.evaluation.detection.selection import Limit, select_annotations, select_detections

ROWS_AT_ONCE = 150_000  # bounds the memory that masks take as Python objects

Work = tuple[Path, int, np.ndarray | None]  # a shard, the number of rows before it, its rows to keep or None for all


def match_share(
    annotations_json: Path, share: Sequence[Work], task: str, limit: Limit, lowest: float
) -> list[Candidates]:
    """The work of one process, which opens the annotations itself (their cache is memory-mapped)."""
    gt = ground_truth.load(annotations_json, masks=needs_masks(task))
    return match_shards(select_annotations(gt, task), share, task, limit, lowest)


def shard_candidates(gt: GroundTruth, shard: Path, task: str, limit: Limit) -> Candidates:
    """The candidates of one shard for the official criteria, `rows` counted within it; `gt` as it is selected."""
    return concatenate(match_shards(gt, [(shard, 0, None)], task, limit, OFFICIAL.thresholds[0]))


def match_shards(gt: GroundTruth, share: Sequence[Work], task: str, limit: Limit, lowest: float) -> list[Candidates]:
    """Candidates of the detections of `share`, one for every block of images; pairs below IoU `lowest` are left out."""
    parts = []
    for path, before, kept in share:
        table = read_shard(path, masks=needs_masks(task))
        original = np.arange(len(table)) if kept is None else np.flatnonzero(kept)
        if kept is not None:
            table = table.take(original)
        rows = select_detections(gt, table, limit)
        for block in blocks(table.image_ids[rows]):
            part = gather(gt, table, rows[block], task, lowest)
            parts.append(replace(part, rows=original[part.rows] + before))
    return parts


def blocks(image_ids: np.ndarray) -> list[slice]:
    """Cut rows, ordered by image, into blocks of about ROWS_AT_ONCE that hold whole images."""
    starts = np.flatnonzero(np.concatenate(([True], image_ids[1:] != image_ids[:-1])))
    bounds = [0]
    for wanted in range(ROWS_AT_ONCE, len(image_ids), ROWS_AT_ONCE):
        bounds.append(int(starts[np.searchsorted(starts, wanted, side="right") - 1]))
    bounds.append(len(image_ids))
    bounds = sorted(set(bounds)) if len(image_ids) else [0, 0]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
