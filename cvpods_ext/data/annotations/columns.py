"""First pass over an annotation json: every record becomes a few numbers in flat files on disk.

No Python object per annotation outlives its parsing, so memory does not grow with the json. What an annotation
refers to (image, category) is checked later, since a json may list its parts in any order.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.data.annotations.rle import compress

# Why an annotation is dropped, by the code stored in its row; 0 is sound.
DROPPED = (
    "",
    "not an object with whole-number image_id and category_id",
    "image_id is not in images",
    "category_id is not in categories",
    "box is missing or is not four numbers",
    "box has a non-finite number",
    "box has no positive width and height",
    "box lies outside its image",
    "every polygon has fewer than 3 points or an odd number of values",
    "polygon has a value that is no finite number",
    "RLE does not decode or has not the size of its image",
    "no mask although other annotations have one",
)
UNREADABLE, NO_IMAGE, NO_CATEGORY, NO_BOX, BOX_NOT_FINITE, BOX_EMPTY, BOX_OUTSIDE = range(1, 8)
BAD_POLYGONS, POLYGON_NOT_FINITE, BAD_RLE, NO_MASK = range(8, 12)

_ROWS_IN_MEMORY = 1 << 15
_MISSING_BOX = (np.nan,) * 4


class _FlatFile:
    """Values appended to one binary file, given back as a memory-mapped array."""

    def __init__(self, path: Path, typecode: str, dtype: str) -> None:
        self._path, self._dtype = path, dtype
        self._pending = array(typecode)
        self.extend, self.append = self._pending.extend, self._pending.append
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `read`, long after this scope

    def __len__(self) -> int:
        return len(self._pending)

    def truncate(self, length: int) -> None:
        del self._pending[length:]

    def flush(self) -> None:
        self._pending.tofile(self._file)
        del self._pending[:]

    def read(self) -> np.ndarray:
        self.flush()
        self._file.close()
        if self._path.stat().st_size == 0:
            return np.zeros(0, self._dtype)
        return np.memmap(self._path, self._dtype, mode="r")


_TYPES = {"q": "<i8", "d": "<f8", "f": "<f4", "B": "u1", "i": "<i4"}
_COLUMNS = {
    "id": "q", "image_id": "q", "category_id": "q", "box": "d", "area": "d", "crowd": "B", "problem": "B",
    "rings": "i", "rle_length": "i", "rle_size": "i", "points": "i", "coordinates": "f", "rle": "B",
}  # fmt: skip


class AnnotationColumns:
    """Flat columns of all annotations of one json in `folder`.

    Per annotation: id, image_id, category_id, box (4 values, XYWH as written), area, crowd, problem (index into
    DROPPED), rings (number of polygons), rle_length (bytes, 0 for polygons), rle_size (height, width).
    Per polygon: points. Flat: coordinates (x, y, x, y, ...; float32 resolves 6e-5 pixels at 1000), rle.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {name: _FlatFile(folder / name, code, _TYPES[code]) for name, code in _COLUMNS.items()}
        self.rings_dropped = 0

    def add(self, annotation: Any) -> None:
        """Append one annotation; whatever is wrong with it is written into its row, never raised."""
        files = self._files
        try:
            image_id, category_id = annotation["image_id"], annotation["category_id"]
            files["image_id"].append(image_id)
        except (TypeError, KeyError, OverflowError):
            self._add_unreadable()
            return
        try:
            files["category_id"].append(category_id)
        except (TypeError, OverflowError):
            files["image_id"].truncate(len(files["image_id"]) - 1)
            self._add_unreadable()
            return
        identity = annotation.get("id", -1)
        files["id"].append(identity if isinstance(identity, int) and abs(identity) < 1 << 62 else -1)
        box, problem = _box(annotation.get("bbox"))
        files["box"].extend(box)
        files["area"].append(_number(annotation.get("area"), default=box[2] * box[3]))
        files["crowd"].append(1 if annotation.get("iscrowd") else 0)
        mask_problem = self._add_mask(annotation.get("segmentation"))
        files["problem"].append(problem or mask_problem)
        if len(files["id"]) >= _ROWS_IN_MEMORY:
            for file in files.values():
                file.flush()

    def _add_unreadable(self) -> None:
        for name in ("id", "image_id", "category_id"):
            self._files[name].append(-1)
        self._files["box"].extend(_MISSING_BOX)
        self._files["area"].append(0)
        self._files["crowd"].append(0)
        self._finish_mask()
        self._files["problem"].append(UNREADABLE)

    def _finish_mask(self, rings: int = 0, rle_length: int = 0, size: tuple[int, int] = (0, 0)) -> None:
        self._files["rings"].append(rings)
        self._files["rle_length"].append(rle_length)
        self._files["rle_size"].extend(size)

    def _add_mask(self, segmentation: Any) -> int:
        """Append polygons or RLE of one annotation; returns its problem code."""
        if not segmentation:
            self._finish_mask()
            return 0
        if isinstance(segmentation, Mapping):
            return self._add_rle(segmentation)
        if not isinstance(segmentation, list):
            self._finish_mask()
            return BAD_POLYGONS
        return self._add_polygons(segmentation)

    def _add_rle(self, segmentation: Mapping[str, Any]) -> int:
        compressed = compress(segmentation)
        if compressed is None:
            self._finish_mask()
            return BAD_RLE
        counts, size = compressed
        self._files["rle"].extend(counts)
        self._finish_mask(rle_length=len(counts), size=size)
        return 0

    def _add_polygons(self, polygons: list[Any]) -> int:
        coordinates, points = self._files["coordinates"], self._files["points"]
        first, kept = len(coordinates), 0
        try:
            for polygon in polygons:
                size = len(polygon)
                if size < 6 or size % 2:
                    continue
                coordinates.extend(polygon)
                points.append(size // 2)
                kept += 1
        except TypeError:  # not a list, or not of numbers
            coordinates.truncate(first)
            points.truncate(len(points) - kept)
            self._finish_mask()
            return POLYGON_NOT_FINITE
        self.rings_dropped += len(polygons) - kept
        self._finish_mask(rings=kept)
        return 0 if kept else BAD_POLYGONS

    def read(self) -> dict[str, np.ndarray]:
        """All columns, memory-mapped; the boxes as (N, 4), the RLE sizes as (N, 2)."""
        columns = {name: file.read() for name, file in self._files.items()}
        columns["box"] = columns["box"].reshape(-1, 4)
        columns["rle_size"] = columns["rle_size"].reshape(-1, 2)
        return columns


def _box(value: Any) -> tuple[tuple[float, ...], int]:
    try:
        x, y, width, height = (float(side) for side in value)
    except (TypeError, ValueError):
        return _MISSING_BOX, NO_BOX
    return (x, y, width, height), 0


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) else default
