"""From a folder of shards to its match table, on all cores and in bounded memory; kept on disk for what comes later."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection import iou_cache
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_shards import match_shards
from cvpods_ext.evaluation.detection.match_table import (
    Candidates,
    Evaluated,
    MatchTable,
    Objects,
    concatenate,
    match_candidates,
)
from cvpods_ext.evaluation.detection.match_worker import run_shares
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, Criteria, needs_masks
from cvpods_ext.evaluation.detection.selection import Limit, best_per_category, select_annotations
from cvpods_ext.evaluation.detection.shards import completed_image_ids, read_shard_metadata, shard_files
from cvpods_ext.runtime.files import atomic_path

FORMAT = 4  # of the cached table
ROWS_PER_WORKER = 1_000_000  # fewer do not repay the start of a process


def match_table(
    gt: GroundTruth,
    folder: Path,
    task: str,
    limit: Limit,
    workers: int | None = None,
    criteria: Criteria = OFFICIAL,
) -> MatchTable:
    """The match table of all shards in `folder`, from the cache beside them if neither they nor the json changed.

    `workers` processes, threads for boxes (None: one per core, fewer for little work), share the shards that
    `background_eval` did not prepare.
    """
    completed_image_ids(folder)
    cache = Path(folder) / f"matches-{task}-{limit}-{criteria}.parquet"
    fingerprint = _fingerprint(gt, folder)
    cached = _read(cache, fingerprint)
    if cached is None:
        counted = select_annotations(gt, task)
        cached = match_candidates(counted, _candidates(counted, folder, task, limit, workers, criteria), criteria)
        _write(cache, *cached, fingerprint)
        if criteria == OFFICIAL:
            iou_cache.remove(folder, task, limit)
    return MatchTable(*cached, gt.image_ids, gt.category_ids, gt.category_names, gt.frequency, criteria)


def _candidates(
    gt: GroundTruth, folder: Path, task: str, limit: Limit, workers: int | None, criteria: Criteria
) -> Candidates:
    files = shard_files(folder)
    if not files:
        raise DataError(f"no detections-*.parquet in {folder}. Run pods_test, or import a results json first.")
    sizes = [read_shard_metadata(path).rows for path in files]
    before = np.cumsum([0, *sizes])
    kept = _kept_rows(files, before, limit)
    ready, work = [], []
    for path, start, rows in zip(files, before[:-1].tolist(), kept, strict=True):
        prepared = iou_cache.read(path, task, limit, gt) if criteria == OFFICIAL else None
        if prepared is None:
            work.append((path, start, rows))
        else:
            ready.append(iou_cache.shifted(prepared, start))
    if workers is None:
        rows_left = sum(read_shard_metadata(path).rows for path, *_ in work)
        workers = min(len(os.sched_getaffinity(0)), 1 + rows_left // ROWS_PER_WORKER)
    workers = min(workers, len(work))
    lowest = criteria.thresholds[0]
    if workers <= 1:
        return concatenate([*ready, *match_shards(gt, work, task, limit, lowest)])
    if not needs_masks(task):  # array operations, which threads share the cores for
        with ThreadPoolExecutor(workers) as pool:
            parts = pool.map(lambda one: match_shards(gt, [one], task, limit, lowest), work)
            return concatenate([*ready, *itertools.chain.from_iterable(parts)])
    shares = [(gt.path, work[k::workers], task, limit, lowest) for k in range(workers)]
    return concatenate([*ready, *run_shares(shares)])


def _kept_rows(files: Sequence[Path], before: np.ndarray, limit: Limit) -> list[np.ndarray | None]:
    """Per shard the rows within `limit.per_category`, which only all shards together can tell."""
    if limit.per_category is None:
        return [None] * len(files)
    tables = [pq.read_table(path, columns=["category_id", "score"]) for path in files]
    categories, scores = (
        np.concatenate([table.column(name).to_numpy() for table in tables]) for name in ("category_id", "score")
    )
    kept = best_per_category(categories, scores, limit.per_category)
    return [kept[start:stop] for start, stop in itertools.pairwise(before)]


def _fingerprint(gt: GroundTruth, folder: Path) -> str:
    """Changes when the annotations, the frequency groups' file or any shard does."""
    shards = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in shard_files(folder)]
    return json.dumps([FORMAT, gt.content, shards])


def _write(path: Path, evaluated: Evaluated, objects: Objects, fingerprint: str) -> None:
    """One file with detections and, after them, objects; a folder that cannot be written is only a warning."""
    columns = {f"evaluated.{f.name}": getattr(evaluated, f.name) for f in fields(evaluated)}
    parts = {f"objects.{f.name}": getattr(objects, f.name) for f in fields(objects)}
    metadata = {"fingerprint": fingerprint, "objects": _packed(parts)}
    try:
        with atomic_path(path) as temporary:
            table = pa.table(columns).replace_schema_metadata(metadata)
            pq.write_table(table, temporary, compression="lz4", use_dictionary=False)  # twice as fast as smaller files
    except OSError as error:
        logging.getLogger(__name__).warning("the match table is not kept: %s", error)


def _packed(columns: dict[str, np.ndarray]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _read(path: Path, fingerprint: str) -> tuple[Evaluated, Objects] | None:
    """The cached table, or None if there is none for this fingerprint; a damaged one is made again."""
    if not path.is_file():
        return None
    try:
        metadata: dict[bytes, Any] = pq.read_metadata(path).metadata or {}
        if metadata.get(b"fingerprint") != fingerprint.encode():
            return None
        evaluated = pq.read_table(path)
        objects = pa.ipc.open_stream(metadata[b"objects"]).read_all()
    except (pa.ArrowException, OSError):
        return None
    return (
        Evaluated(
            **{name.removeprefix("evaluated."): evaluated.column(name).to_numpy() for name in evaluated.column_names}
        ),
        Objects(**{name.removeprefix("objects."): objects.column(name).to_numpy() for name in objects.column_names}),
    )
