"""First pass over an annotation json: every record becomes a few numbers in flat files on disk.

No Python object per annotation outlives its parsing, so memory does not grow with the json. What an annotation
refers to (image, category) is checked later, since a json may list its parts in any order.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from cvpods_ext.data.annotations import policy
from cvpods_ext.data.annotations.policy import Box, Mask, Reference
from cvpods_ext.data.annotations.rle import compress

_ROWS_IN_MEMORY = 1 << 15
_NO_NUMBERS = (np.nan,) * 4
_AS_TEXT = "number, id or flag written as text or as 1.0, read as what it says"
_NO_AREA = "area that is absent or no number >= 0, derived from mask or box"
_ALONE = "polygon that stands alone instead of in a list of polygons, read as one polygon"
_RING_LEFT_OUT = "polygon left out of an annotation that has others"


class _FlatFile:
    """Values appended to one binary file, given back as a memory-mapped array."""

    def __init__(self, path: Path, typecode: str, dtype: str) -> None:
        self._path, self._dtype = path, dtype
        self.pending = array(typecode)  # what was appended since the last flush
        self.extend, self.append = self.pending.extend, self.pending.append
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `read`, long after this scope

    def __len__(self) -> int:
        return len(self.pending)

    def truncate(self, length: int) -> None:
        del self.pending[length:]

    def flush(self) -> None:
        self.pending.tofile(self._file)
        del self.pending[:]

    def read(self) -> np.ndarray:
        self.flush()
        self._file.close()
        if self._path.stat().st_size == 0:
            return np.zeros(0, self._dtype)
        return np.memmap(self._path, self._dtype, mode="r")


_TYPES = {"q": "<i8", "d": "<f8", "B": "u1", "i": "<i4"}
_COLUMNS = {
    "id": "q", "image_id": "q", "category_id": "q", "reference": "B", "box": "d", "box_problem": "B", "area": "d",
    "crowd": "B", "ignore": "B", "mask_problem": "B", "rings": "i", "rle_length": "i", "rle_size": "i", "points": "i",
    "coordinates": "d", "rle": "B",
}  # fmt: skip


class AnnotationColumns:
    """Flat columns of all annotations of one json in `folder`.

    Per annotation: id, image_id, category_id, reference (policy.Reference), box (4 values, XYWH as written, NaN where
    absent) and box_problem (policy.Box), area (NaN where absent), crowd, ignore, mask_problem (policy.Mask), rings
    (number of polygons), rle_length (bytes, 0 for polygons), rle_size (height, width).
    Per polygon: points. Flat: coordinates (x, y, x, y, ... as written), rle. `noted` counts what was read in spite of
    how it was written.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {name: _FlatFile(folder / name, code, _TYPES[code]) for name, code in _COLUMNS.items()}
        self.noted: Counter[str] = Counter()

    def add(self, annotation: Any) -> None:
        """Append one annotation; whatever is wrong with it is written into its row, never raised."""
        files = self._files
        if not isinstance(annotation, dict):
            annotation = {}
        image_id, category_id = self._whole(annotation.get("image_id")), self._whole(annotation.get("category_id"))
        crowd, ignore = self._flag(annotation.get("iscrowd", 0)), self._flag(annotation.get("ignore", 0))
        reference = Reference.SOUND
        if image_id is None:
            reference = Reference.UNREADABLE
        elif category_id is None:
            reference = Reference.NO_CATEGORY
        elif crowd is None or ignore is None:
            reference = Reference.BAD_FLAG
        identity = self._whole(annotation.get("id"))
        files["id"].append(-1 if identity is None else identity)
        files["image_id"].append(-1 if image_id is None else image_id)
        files["category_id"].append(-1 if category_id is None else category_id)
        files["reference"].append(reference)
        files["crowd"].append(1 if crowd else 0)
        files["ignore"].append(1 if ignore else 0)
        files["box_problem"].append(self._add_box(annotation.get("bbox")))
        files["area"].append(self._area(annotation.get("area")))
        files["mask_problem"].append(self._add_mask(annotation.get("segmentation")))
        if len(files["id"]) >= _ROWS_IN_MEMORY:
            for file in files.values():
                file.flush()

    def _whole(self, value: Any) -> int | None:
        if type(value) is int and -policy.LARGEST_ID <= value <= policy.LARGEST_ID:
            return value
        found = policy.whole_number(value)
        self.noted[_AS_TEXT] += found is not None
        return found

    def _flag(self, value: Any) -> bool | None:
        if type(value) is int and 0 <= value <= 1:
            return value == 1
        found = policy.flag(value)
        self.noted[_AS_TEXT] += isinstance(value, str) and found is not None
        return found

    def _area(self, value: Any) -> float:
        area = policy.number(value)
        self.noted[_AS_TEXT] += isinstance(value, str) and area == area
        if 0 <= area < np.inf:
            return area
        self.noted[_NO_AREA] += 1
        return np.nan

    def _add_box(self, box: Any) -> Box:
        """Append the four numbers of a box, or NaN."""
        boxes = self._files["box"]
        if not isinstance(box, list) or len(box) != 4:
            boxes.extend(_NO_NUMBERS)
            return Box.NO_BOX
        if not self._extend(boxes, box):
            boxes.extend(_NO_NUMBERS)
            return Box.NO_BOX
        return Box.SOUND

    def _extend(self, file: _FlatFile, values: list[Any]) -> bool:
        """Append numbers, or numbers as text; nothing and False if one value is neither."""
        before = len(file)
        try:
            file.extend(values)  # at the speed of C; it takes numbers only
        except (TypeError, OverflowError):
            file.truncate(before)
            if not all(isinstance(value, (int, float, str)) for value in values):
                return False
            numbers = [policy.number(value) for value in values]
            if any(n != n and isinstance(value, str) for n, value in zip(numbers, values, strict=True)):
                return False
            self.noted[_AS_TEXT] += 1
            file.extend(numbers)
        return True

    def _finish_mask(self, rings: int = 0, rle_length: int = 0, size: tuple[int, int] = (0, 0)) -> None:
        self._files["rings"].append(rings)
        self._files["rle_length"].append(rle_length)
        self._files["rle_size"].extend(size)

    def _add_mask(self, segmentation: Any) -> Mask:
        """Append polygons or RLE of one annotation."""
        if isinstance(segmentation, list) and segmentation:
            if isinstance(segmentation[0], (int, float, str)):
                self.noted[_ALONE] += 1
                segmentation = [segmentation]
            return self._add_polygons(segmentation)
        if isinstance(segmentation, Mapping) and segmentation:
            return self._add_rle(segmentation)
        self._finish_mask()
        return Mask.UNREADABLE if segmentation else Mask.NO_MASK

    def _add_rle(self, segmentation: Mapping[str, Any]) -> Mask:
        compressed = compress(segmentation)
        if compressed is None:
            self._finish_mask()
            return Mask.BAD_RLE
        counts, size = compressed
        self._files["rle"].extend(counts)
        self._finish_mask(rle_length=len(counts), size=size)
        self._derive_from_rle({"size": list(size), "counts": counts})
        return Mask.SOUND

    def _derive_from_rle(self, rle: Any) -> None:
        """Area and box of this annotation where it states none."""
        areas, boxes, problems = (self._files[name].pending for name in ("area", "box", "box_problem"))
        if areas[-1] != areas[-1]:
            areas[-1] = float(coco_mask.area(rle))
        if problems[-1] == Box.NO_BOX:
            boxes[-4:] = array("d", coco_mask.toBbox(rle).tolist())

    def _add_polygons(self, polygons: list[Any]) -> Mask:
        coordinates, points = self._files["coordinates"], self._files["points"]
        first, kept = len(coordinates), 0
        for polygon in polygons:
            if not isinstance(polygon, list):
                break
            if len(polygon) < 6 or len(polygon) % 2:
                continue
            if not self._extend(coordinates, polygon):
                break
            points.append(len(polygon) // 2)
            kept += 1
        else:
            self.noted[_RING_LEFT_OUT] += len(polygons) - kept if kept else 0
            self._finish_mask(rings=kept)
            return Mask.SOUND if kept else Mask.DEGENERATE
        coordinates.truncate(first)
        points.truncate(len(points) - kept)
        self._finish_mask()
        return Mask.NOT_FINITE

    def read(self) -> dict[str, np.ndarray]:
        """All columns, memory-mapped; the boxes as (N, 4), the RLE sizes as (N, 2)."""
        columns = {name: file.read() for name, file in self._files.items()}
        columns["box"] = columns["box"].reshape(-1, 4)
        columns["rle_size"] = columns["rle_size"].reshape(-1, 2)
        return columns
