"""The shards of detections: which columns they have, and their kind's functions by name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cvpods_ext.evaluation.shards import ShardKind

BOX_COLUMNS = ("x", "y", "w", "h")
MASK_COLUMNS = ("rle_counts", "rle_height", "rle_width")
ENTRY = "entry"  # only in shards of an imported json: position in its list


def shard_schema(real: pa.DataType) -> pa.Schema:
    """The columns of a shard; `real` is float32 for our models, float64 for json, whose digits it keeps."""
    numbers = [(name, real) for name in ("score", *BOX_COLUMNS)]
    masks = [("rle_counts", pa.binary()), ("rle_height", pa.int32()), ("rle_width", pa.int32())]
    return pa.schema([("image_id", pa.int64()), ("category_id", pa.int64()), *numbers, *masks])


DETECTIONS = ShardKind("detections", shard_schema(pa.float32()))
shard_files = DETECTIONS.files
read_shard_metadata = DETECTIONS.read_metadata
completed_image_ids = DETECTIONS.completed_image_ids
set_damaged_aside = DETECTIONS.set_damaged_aside


def remove_shards(folder: Path) -> None:
    """Forget all detections in `folder`, to test anew."""
    for path in shard_files(folder):
        path.unlink()
