"""Evaluation beside the test: a process of its own overlaps each shard with the annotations as soon as it is complete.

It watches the folder, so it serves the shards of all ranks and those of an interrupted test alike. Nothing depends on
it: the evaluation computes whatever it did not get to, with the same result.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cvpods_ext.errors import UserError
from cvpods_ext.evaluation.detection import ground_truth, iou_cache
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_shards import shard_candidates
from cvpods_ext.evaluation.detection.protocol import iou_type, needs_masks
from cvpods_ext.evaluation.detection.selection import limit_of, select_annotations
from cvpods_ext.evaluation.detection.shards import shard_files

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0
_NICENESS = 10  # reading images and computing come first
_USER_ERROR = 2


@contextmanager
def evaluating_beside(
    annotations_json: Path, folder: Path, families: Sequence[str], max_detections: int
) -> Iterator[None]:
    """While the body writes shards into `folder`, those that are complete are prepared for evaluation."""
    tasks = list(dict.fromkeys(map(iou_type, families)))  # several families share the overlaps of one
    work = json.dumps([str(annotations_json), str(folder), tasks, max_detections])
    process = subprocess.Popen(
        [sys.executable, "-m", "cvpods_ext.evaluation.detection.background_eval", work],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the test, which then ends this process
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        yield
    finally:
        if process.poll() not in (None, _USER_ERROR):
            logger.warning("the evaluation beside the test died (status %s); it is done now", process.returncode)
        process.terminate()  # it loses at most the shard at hand, since files are complete or absent
        process.wait()


def prepare_as_they_come(annotations_json: Path, folder: Path, tasks: Sequence[str], max_detections: int) -> None:
    """Prepare every shard for every task until the process that started this one is gone."""
    parent = os.getppid()
    counted = counted_annotations(ground_truth.load(annotations_json, masks=any(map(needs_masks, tasks))), tasks)
    done: set[tuple[str, int]] = set()
    while os.getppid() == parent:
        for shard in shard_files(folder):
            state = (shard.name, shard.stat().st_mtime_ns)
            if state not in done and os.getppid() == parent:
                prepare(counted, shard, max_detections)
                done.add(state)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def counted_annotations(gt: GroundTruth, tasks: Sequence[str]) -> dict[str, GroundTruth]:
    """The annotations that count for each task."""
    return {task: select_annotations(gt, task) for task in tasks}


def prepare(counted: Mapping[str, GroundTruth], shard: Path, max_detections: int) -> None:
    """Keep the overlaps of one shard with the `counted_annotations` of every task, if they are not there."""
    for task, gt in counted.items():
        limit = limit_of(gt.federated, max_detections)
        if iou_cache.read(shard, task, limit, gt) is None:
            iou_cache.write(shard, task, limit, gt, shard_candidates(gt, shard, task, limit))


def main() -> None:
    """Prepare what the only argument says, as JSON; an error of the user's is left to the evaluation to report."""
    annotations_json, folder, tasks, max_detections = json.loads(sys.argv[1])
    os.nice(_NICENESS)
    try:
        prepare_as_they_come(Path(annotations_json), Path(folder), tasks, max_detections)
    except UserError:
        sys.exit(_USER_ERROR)


if __name__ == "__main__":
    main()
