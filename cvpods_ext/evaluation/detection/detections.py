"""Detections on disk: Parquet shards that every rank streams while it infers, and one table to read them all.

A shard is complete or absent, holds complete images only, and lists them in its metadata, so an interrupted test
continues at the first image that no shard names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.data.annotations import policy
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import atomic_path

if TYPE_CHECKING:
    from types import TracebackType

    from cvpods_ext.structures import Detections

BOX_COLUMNS = ("x", "y", "w", "h")
MASK_COLUMNS = ("rle_counts", "rle_height", "rle_width")
SHARD_IMAGES = 500  # by default; what a crash may lose
HIGHEST_SCORE = 1 + 1e-6  # room for rounding
_SCORES = "score is not in [0, 1]; divide percentages by 100, pass logits through a sigmoid"
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
    """Complete shards in `folder`, by rank and number."""
    return sorted((p for p in Path(folder).glob("*.parquet") if _NAME.fullmatch(p.name)), key=_rank_and_number)


def _rank_and_number(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match, f"{path} is not named like a shard"
    return int(match[1]), int(match[2])


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
        mine = [number for owner, number in map(_rank_and_number, shard_files(self._folder)) if owner == rank]
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
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=shard_schema(pa.float32())))
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


@dataclass(frozen=True)
class ShardMetadata:
    """The images that a shard completes, its test settings, and its number of detections."""

    image_ids: list[int]
    settings: dict[str, Any]
    rows: int


def read_shard_metadata(path: Path) -> ShardMetadata:
    """Read the footer only; a truncated or foreign file is a DataError."""
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a complete Parquet file ({_first_line(error)}). "
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
    return ShardMetadata(image_ids, settings if isinstance(settings, dict) else {}, footer.num_rows)


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


def _first_line(error: Exception) -> str:
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


def are_boxes_only(folder: Path) -> bool:
    """Whether there are detections in `folder`, and none of them has a mask."""
    files = [path for path in shard_files(folder) if read_shard_metadata(path).rows]
    heights = [_read_columns(path, ["rle_height"]).column(0) for path in files]
    return bool(heights) and all(column.null_count == len(column) for column in heights)


@dataclass(frozen=True)
class DetectionTable:
    """Detections of many images as columns, in file order.

    image_ids, category_ids (N,) int64; scores (N,) float; boxes (N, 4) float XYWH pixels; rle_counts a binary Arrow
    array of N compressed COCO RLEs or None if not read or box-only; rle_sizes (N, 2) int32 height, width.
    `completed` are the images that were inferred, with or without detections.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    rle_counts: pa.ChunkedArray | None
    rle_sizes: np.ndarray | None
    completed: np.ndarray
    settings: dict[str, Any]
    source: Path

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, positions: np.ndarray) -> DetectionTable:
        """The rows at `positions`, in that order."""
        return replace(
            self,
            image_ids=self.image_ids[positions],
            category_ids=self.category_ids[positions],
            scores=self.scores[positions],
            boxes=self.boxes[positions],
            rle_counts=None if self.rle_counts is None else self.rle_counts.take(pa.array(positions)),
            rle_sizes=None if self.rle_sizes is None else self.rle_sizes[positions],
        )

    def rles(self) -> list[dict[str, Any]]:
        """The masks as COCO dicts; as many Python objects as rows, so take what is needed first."""
        assert self.rle_counts is not None, "masks were not read"
        assert self.rle_sizes is not None, "masks were not read"
        counts, sizes = self.rle_counts.to_pylist(), self.rle_sizes.tolist()
        return [{"size": size, "counts": count} for size, count in zip(sizes, counts, strict=True)]


def read(folder: Path, masks: bool = True) -> DetectionTable:
    """All shards of all ranks in `folder` as one table, checked; `masks=False` leaves the RLE column on disk."""
    completed_image_ids(folder)
    parts = [read_shard(path, masks) for path in shard_files(folder)]
    if not parts:
        raise DataError(f"no detections-*.parquet in {folder}. Run pods_test, or import a results json first.")
    return _concatenated(parts, masks, Path(folder))


def _concatenated(parts: Sequence[DetectionTable], masks: bool, folder: Path) -> DetectionTable:
    has_masks = all(part.rle_counts is not None for part in parts if len(part))
    counts = [part.rle_counts for part in parts if part.rle_counts is not None]
    sizes = [part.rle_sizes for part in parts if part.rle_sizes is not None]
    keep = masks and has_masks and bool(counts)
    return DetectionTable(
        image_ids=np.concatenate([part.image_ids for part in parts]),
        category_ids=np.concatenate([part.category_ids for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        rle_counts=pa.chunked_array([chunk for one in counts for chunk in one.chunks], pa.binary()) if keep else None,
        rle_sizes=np.concatenate(sizes) if keep else None,
        completed=np.unique(np.concatenate([part.completed for part in parts])),
        settings=parts[0].settings,
        source=folder,
    )


def read_rows(folder: Path, rows: np.ndarray, masks: bool) -> DetectionTable:
    """The detections at `rows`, ascending, as all shards together count them; one shard at a time is in memory."""
    files = shard_files(folder)
    if not files:
        raise DataError(f"no detections-*.parquet in {folder}. Run pods_test, or import a results json first.")
    bounds = np.cumsum([0, *(read_shard_metadata(path).rows for path in files)])
    parts = []
    for path, start, stop in zip(files, bounds[:-1], bounds[1:], strict=True):
        here = rows[slice(*np.searchsorted(rows, (start, stop)))]
        if len(here) or not parts:  # one part at least, for the types of the columns
            parts.append(read_shard(path, masks).take(here - start))
    return _concatenated(parts, masks, Path(folder))


def read_shard(path: Path, masks: bool = True) -> DetectionTable:
    """One shard as a table; values that no evaluator can rank or place are a DataError."""
    names = ["image_id", "category_id", "score", *BOX_COLUMNS, *(MASK_COLUMNS if masks else ())]
    metadata = read_shard_metadata(path)
    table = _read_columns(path, names)
    for name in names:
        if name not in MASK_COLUMNS and (nulls := table.column(name).null_count):
            raise DataError(f"{path}: column {name} has {nulls} rows without a value. Every detection needs one.")
    column = {name: table.column(name).to_numpy() for name in names if name != "rle_counts"}
    counts = table.column("rle_counts") if masks else None
    has_masks = counts is not None and counts.null_count == 0
    if counts is not None and 0 < counts.null_count < len(counts):
        row = int(np.flatnonzero(counts.is_null().to_numpy())[0])
        raise DataError(f"{path}, row {row}: no mask, while other rows have one. Write masks for all rows or for none.")
    for name in MASK_COLUMNS[1:] if has_masks else ():
        if table.column(name).null_count:
            raise DataError(f"{path}: column {name} has rows without a value. Every mask needs its height and width.")
    result = DetectionTable(
        image_ids=column["image_id"],
        category_ids=column["category_id"],
        scores=column["score"],
        boxes=np.stack([column[name] for name in BOX_COLUMNS], axis=1),
        rle_counts=counts.cast(pa.binary()) if counts is not None and has_masks else None,
        rle_sizes=np.stack([column["rle_height"], column["rle_width"]], axis=1) if has_masks else None,
        completed=np.asarray(metadata.image_ids, dtype=np.int64),
        settings=metadata.settings,
        source=path,
    )
    _refuse_bad_values(result)
    return result


def _read_columns(path: Path, names: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({_first_line(error)}). Delete it and test again: only its images are repeated."
        ) from error


def score_problem(score: float) -> str:
    """What is wrong with a score, "" if nothing is."""
    if not math.isfinite(score):
        return "is no finite number"
    return "" if 0 <= score <= HIGHEST_SCORE else _SCORES.removeprefix("score ")


def _refuse_bad_values(table: DetectionTable) -> None:
    """Raise a DataError on the first non-finite number, negative side, or image that the metadata does not name."""
    checks = (
        (~np.isfinite(table.scores), "score is not finite; test an earlier checkpoint, or repair the file"),
        ((table.scores < 0) | (table.scores > HIGHEST_SCORE), _SCORES),
        (~np.isfinite(table.boxes).all(axis=1), "box is not finite; test an earlier checkpoint, or repair the file"),
        ((table.boxes[:, 2:] < 0).any(axis=1), "box has a negative side; boxes are x, y, width, height"),
        (~np.isin(table.image_ids, table.completed), "image is not among the metadata's image_ids; delete the shard"),
    )
    for wrong, problem in checks:
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{table.source}, row {row} (image {table.image_ids[row]}, category {table.category_ids[row]}, "
                f"score {table.scores[row]}, box {table.boxes[row].tolist()}): {problem}."
            )
