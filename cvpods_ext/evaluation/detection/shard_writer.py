"""Writes the detections of one process as shards while it infers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.shards import (
    rank_and_number,
    read_shard_metadata,
    shard_files,
    shard_metadata,
    shard_schema,
)
from cvpods_ext.runtime.files import atomic_path

if TYPE_CHECKING:
    from types import TracebackType

    from cvpods_ext.structures import Detections

SHARD_IMAGES = 500  # by default; what a crash may lose


class ShardWriter:
    """Streams the detections of one rank into shards of `shard_images` images, so memory stays bounded.

    Use as a context manager: leaving it writes the last, shorter shard (also on Ctrl-C; a crash loses at most one).
    `settings` must be JSON; shards of other settings in the same folder are a DataError, since the mixture would be
    evaluated as one result.
    """

    def __init__(self, folder: Path, rank: int, settings: dict[str, Any], shard_images: int = SHARD_IMAGES) -> None:
        self._folder, self._rank, self._settings = Path(folder), rank, settings
        self._shard_images = shard_images
        self._refuse_other_settings()
        mine = [number for owner, number in map(rank_and_number, shard_files(self._folder)) if owner == rank]
        self._next = max(mine, default=-1) + 1
        self._image_ids: list[int] = []
        self._batches: list[pa.RecordBatch] = []

    def _refuse_other_settings(self) -> None:
        for path in shard_files(self._folder):
            found = read_shard_metadata(path).settings
            if found != json.loads(json.dumps(self._settings)):
                raise DataError(
                    f"{path} was made with other test settings: {found}, now {self._settings}. "
                    f"Delete {self._folder} to test anew, or restore those settings to continue."
                )

    def add(self, detections: Detections, category_ids: Sequence[int]) -> None:
        """Append one complete image; `category_ids` maps label -> id of the annotation file."""
        self._batches.append(to_rows(detections, category_ids))
        self._image_ids.append(int(detections.image_id))
        if len(self._image_ids) >= self._shard_images:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as one shard."""
        if not self._image_ids:
            return
        schema = shard_schema(pa.float32()).with_metadata(shard_metadata(self._image_ids, self._settings))
        with atomic_path(self._folder / f"detections-{self._rank}-{self._next}.parquet") as temporary:
            pq.write_table(pa.Table.from_batches(self._batches).cast(schema), temporary, compression="zstd")
        self._next += 1
        self._image_ids, self._batches = [], []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.flush()


def to_rows(detections: Detections, category_ids: Sequence[int]) -> pa.RecordBatch:
    """The detections of one image as the rows of a shard, in float32, boxes XYWH; `category_ids` as in `add`.

    Whoever shows detections takes them from here, so that its numbers are those of a test to the last digit. DataError
    for a score or box that is not finite.
    """
    scores = detections.scores.detach().cpu().numpy().astype(np.float32)
    boxes = detections.boxes.detach().cpu().numpy().astype(np.float32).reshape(-1, 4)
    labels = detections.labels.detach().cpu().numpy()
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise DataError(
            f"image {detections.image_id}: a score or box is not finite; the weights have diverged. "
            "Test an earlier checkpoint."
        )
    masks = detections.masks
    columns = [
        pa.array(np.full(len(scores), detections.image_id, dtype=np.int64)),
        pa.array(np.asarray(category_ids, dtype=np.int64)[labels]),
        pa.array(scores),
        pa.array(boxes[:, 0]),
        pa.array(boxes[:, 1]),
        pa.array(boxes[:, 2] - boxes[:, 0]),
        pa.array(boxes[:, 3] - boxes[:, 1]),
        pa.array([m["counts"] for m in masks] if masks is not None else [None] * len(scores), pa.binary()),
        pa.array([m["size"][0] for m in masks] if masks is not None else [None] * len(scores), pa.int32()),
        pa.array([m["size"][1] for m in masks] if masks is not None else [None] * len(scores), pa.int32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=shard_schema(pa.float32()))
