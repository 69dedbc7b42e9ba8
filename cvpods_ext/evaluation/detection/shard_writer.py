"""Writes the detections of one process as shards while it infers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation import shards
from cvpods_ext.evaluation.detection.shards import DETECTIONS, shard_schema
from cvpods_ext.evaluation.shards import SHARD_IMAGES

if TYPE_CHECKING:
    from cvpods_ext.structures import Detections


class ShardWriter(shards.ShardWriter):
    """Streams the detections of one process into shards, see `evaluation.shards.ShardWriter`."""

    def __init__(self, folder: Path, rank: int, settings: dict[str, Any], shard_images: int = SHARD_IMAGES) -> None:
        super().__init__(DETECTIONS, folder, rank, settings, shard_images)

    def add(self, detections: Detections, category_ids: Sequence[int]) -> None:
        """Append one complete image; `category_ids` maps label -> id of the annotation file."""
        self.append(int(detections.image_id), to_rows(detections, category_ids))


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
