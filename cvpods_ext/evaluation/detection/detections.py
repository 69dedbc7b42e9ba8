"""Detections of many images as one table, read from shards and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.shards import (
    BOX_COLUMNS,
    ENTRY,
    MASK_COLUMNS,
    completed_image_ids,
    read_shard_metadata,
    shard_files,
)
from cvpods_ext.evaluation.shards import first_line

HIGHEST_SCORE = 1 + 1e-6  # room for rounding
_SCORES = "score is not in [0, 1]; divide percentages by 100, pass logits through a sigmoid"


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
    `completed` are the images that were inferred, with or without detections. positions (N,) int64 are rows of
    `source`, or entries of the json that the detections were imported from.
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
    positions: np.ndarray

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
            positions=self.positions[positions],
        )

    @property
    def _is_imported(self) -> bool:
        return "imported_from" in self.settings

    @property
    def origin(self) -> str:
        """The shard or its folder, and before it the results json that was imported, which its author knows."""
        if not self._is_imported:
            return str(self.source)
        folder = self.source.parent if self.source.suffix == ".parquet" else self.source
        return f"{self.settings['imported_from']} (imported into {folder})"

    def spot(self, row: int) -> str:
        """Where a detection stands in `origin`."""
        return f"{'detection' if self._is_imported else 'row'} {self.positions[row]}"

    def place(self, row: int) -> str:
        """File and place of a detection, and what it is."""
        ids = f"image {self.image_ids[row]}, category {self.category_ids[row]}"
        values = f"score {self.scores[row]}, box {self.boxes[row].tolist()}"
        return f"{self.origin}, {self.spot(row)} ({ids}, {values})"

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
        positions=np.concatenate([part.positions for part in parts]),
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
    table = _read_columns(path, [*names, ENTRY] if ENTRY in metadata.columns else names)
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
        positions=table.column(ENTRY).to_numpy() if ENTRY in metadata.columns else np.arange(len(table)),
    )
    _refuse_bad_values(result)
    return result


def _read_columns(path: Path, names: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({first_line(error)}). Delete it and test again: only its images are repeated."
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
            raise DataError(f"{table.place(row)}: {problem}.")
