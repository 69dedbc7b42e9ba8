"""Overlaps of single shards kept beside them, so that a test that just ended has only to be matched and ranked."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.iou import Overlaps
from cvpods_ext.evaluation.detection.match_table import Candidates
from cvpods_ext.evaluation.detection.selection import Limit
from cvpods_ext.evaluation.detection.shards import shard_files
from cvpods_ext.runtime.files import atomic_path

FORMAT = 2  # raise it when the content of a file changes


def path_of(shard: Path, task: str, limit: Limit) -> Path:
    """Where the candidates of `shard` are kept."""
    return shard.with_name(shard.name.replace("detections-", f"overlaps-{task}-{limit}-").replace(".parquet", ".npz"))


def write(shard: Path, task: str, limit: Limit, gt: GroundTruth, candidates: Candidates) -> None:
    """Keep the candidates of a shard, with `rows` counted within it, under the official criteria."""
    pairs = candidates.pairs
    with atomic_path(path_of(shard, task, limit)) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            fingerprint=_fingerprint(shard, gt),
            rows=candidates.rows.astype(np.int32),
            keys=candidates.keys,
            score=candidates.score,
            area=candidates.area,
            detections=pairs.detections.astype(np.int32),
            annotations=pairs.annotations.astype(np.int32),
            ious=pairs.ious,
        )


def read(shard: Path, task: str, limit: Limit, gt: GroundTruth) -> Candidates | None:
    """What was kept, or None if there is nothing for this shard and these annotations; damage counts as nothing."""
    path = path_of(shard, task, limit)
    if not path.is_file():
        return None
    try:
        with np.load(path) as kept:
            if kept["fingerprint"] != _fingerprint(shard, gt):
                return None
            pairs = Overlaps(kept["detections"].astype(np.int64), kept["annotations"].astype(np.int64), kept["ious"])
            return Candidates(kept["rows"].astype(np.int64), kept["keys"], kept["score"], kept["area"], pairs)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # any of them, if the file is damaged
        return None


def remove(folder: Path, task: str, limit: Limit) -> None:
    """Forget what the match table has taken over; leaves what cannot be removed."""
    for shard in shard_files(folder):
        try:
            path_of(shard, task, limit).unlink(missing_ok=True)
        except OSError:  # the folder is not ours; a file of another state of the shard is never read
            return


def shifted(candidates: Candidates, rows_before: int) -> Candidates:
    """With `rows` counted over all shards."""
    return replace(candidates, rows=candidates.rows + rows_before)


def _fingerprint(shard: Path, gt: GroundTruth) -> str:
    state = shard.stat()
    return json.dumps([FORMAT, gt.content, shard.name, state.st_size, state.st_mtime_ns])
