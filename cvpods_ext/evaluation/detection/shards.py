"""Detections on disk: the Parquet shards of a folder, each complete or absent, and what they say of themselves.

A shard holds complete images only and lists them in its metadata, so an interrupted test continues at the first image
that no shard names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.data.annotations import policy
from cvpods_ext.errors import DataError

BOX_COLUMNS = ("x", "y", "w", "h")
MASK_COLUMNS = ("rle_counts", "rle_height", "rle_width")
ENTRY = "entry"  # only in shards of an imported json: position in its list
_NAME = re.compile(r"detections-(\d+)-(\d+)\.parquet")


def shard_schema(real: pa.DataType) -> pa.Schema:
    """The columns of a shard; `real` is float32 for our models, float64 for json, whose digits it keeps."""
    numbers = [(name, real) for name in ("score", *BOX_COLUMNS)]
    masks = [("rle_counts", pa.binary()), ("rle_height", pa.int32()), ("rle_width", pa.int32())]
    return pa.schema([("image_id", pa.int64()), ("category_id", pa.int64()), *numbers, *masks])


def shard_metadata(image_ids: Sequence[int], settings: dict[str, Any]) -> dict[str, str]:
    """What a shard says about itself: the images it completes and the test options it was made with."""
    return {"image_ids": json.dumps([int(i) for i in image_ids]), "settings": json.dumps(settings, sort_keys=True)}


def shard_files(folder: Path) -> list[Path]:
    """Complete shards in `folder`, by rank and number; those of a linked folder under their own path."""
    folder = Path(folder)
    folder = folder.resolve() if folder.is_symlink() else folder
    return sorted((p for p in folder.glob("*.parquet") if _NAME.fullmatch(p.name)), key=rank_and_number)


def rank_and_number(path: Path) -> tuple[int, int]:
    """The two numbers in the name of a shard."""
    match = _NAME.fullmatch(path.name)
    assert match, f"{path} is not named like a shard"
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class ShardMetadata:
    """The images that a shard completes, its test settings, its number of detections, and whether it knows their
    entries in a json that it was imported from.
    """

    image_ids: list[int]
    settings: dict[str, Any]
    rows: int
    has_entries: bool


def read_shard_metadata(path: Path) -> ShardMetadata:
    """Read the footer only; a truncated or foreign file is a DataError."""
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a complete Parquet file ({first_line(error)}). "
            "Delete it and test again: only its images are repeated."
        ) from error
    columns = footer.schema.to_arrow_schema()
    metadata = footer.metadata or {}
    image_ids, settings = (_json(metadata.get(key, b"null"), path) for key in (b"image_ids", b"settings"))
    lack = [f"column {field.name}" for field in shard_schema(pa.float32()) if not _has_column(columns, field)]
    if not isinstance(image_ids, list) or not all(policy.whole_number(i) == i for i in image_ids):
        lack.append("a list image_ids of whole numbers in its metadata")
    if lack:
        raise DataError(
            f"{path} lacks {', '.join(lack)}: it was not written as a detections shard. Move it out of the folder."
        )
    return ShardMetadata(
        image_ids, settings if isinstance(settings, dict) else {}, footer.num_rows, ENTRY in columns.names
    )


def set_damaged_aside(folder: Path) -> list[Path]:
    """Rename shards that were cut short, so that their images count as not inferred yet; returns the new names.

    The images that a shard completes are named at its end. Files of another kind stay, and are refused when read.
    """
    damaged = []
    for path in shard_files(folder):
        try:
            pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            damaged.append(path.rename(path.with_name(f"{path.name}.damaged")))
    return damaged


def _json(text: bytes, path: Path) -> Any:
    """A value of the metadata; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _has_column(found: pa.Schema, wanted: pa.Field) -> bool:
    """Whether there is a column that holds the kind of values that `wanted` does."""
    if wanted.name not in found.names:
        return False
    kind = found.field(wanted.name).type
    if pa.types.is_floating(wanted.type):
        return pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if pa.types.is_integer(wanted.type):
        return pa.types.is_integer(kind) or pa.types.is_null(kind)
    return any(of(kind) for of in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_null))


def first_line(error: Exception) -> str:
    """What an error says, without the lines below, which are of its library."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def completed_image_ids(folder: Path) -> set[int]:
    """Images that need not be inferred again; two shards that both hold an image are a DataError."""
    owner: dict[int, Path] = {}
    for path in shard_files(folder):
        for image_id in read_shard_metadata(path).image_ids:
            if image_id in owner:
                raise DataError(
                    f"image {image_id} is in both {owner[image_id]} and {path.name}: its detections would count twice. "
                    "Delete one of the two and test again: only its images are repeated."
                )
            owner[image_id] = path
    return set(owner)


def remove_shards(folder: Path) -> None:
    """Forget all detections in `folder`, to test anew."""
    for path in shard_files(folder):
        path.unlink()
