"""Compressed COCO RLE masks, measured, and those of detections checked."""

from __future__ import annotations

from typing import Any

import hotcoco
import numpy as np

from cvpods_ext.data.annotations.rle import covered_pixels
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.detections import DetectionTable

rle_tools = hotcoco.mask
_MASKS_AT_ONCE = 20_000


def mask_boxes(rles: list[dict[str, Any]]) -> np.ndarray:
    """Tight boxes (N, 4) float64 XYWH of readable masks."""
    return rle_tools.to_bbox(rles).reshape(-1, 4) if rles else np.zeros((0, 4))


def mask_areas(table: DetectionTable, rles: list[dict[str, Any]], sizes: np.ndarray) -> np.ndarray:
    """(N,) float64 pixels of the masks of detections on images of `sizes` (N, 2).

    An unreadable mask or one of another size is a DataError.
    """
    if not rles:
        return np.zeros(0)
    assert table.rle_sizes is not None, "masks were not read"
    wrong = (table.rle_sizes != sizes).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{table.place(row)}: a mask of size {table.rle_sizes[row].tolist()} on an image of size "
            f"{sizes[row].tolist()} (height, width). Masks must be in the pixels of the original image."
        )
    try:
        return np.asarray(rle_tools.area(rles), dtype=np.float64).reshape(-1)
    except ValueError as error:
        raise DataError(f"{table.origin}: a mask is not a compressed COCO RLE ({error}).") from error


def require_masks(table: DetectionTable) -> None:
    """DataError if the detections are boxes only."""
    if len(table) and table.rle_counts is None:
        raise DataError(f"{table.origin} holds boxes only; segm needs masks. Evaluate with test.metrics=('bbox',).")


def require_whole_masks(table: DetectionTable) -> None:
    """DataError if the runs of a mask do not fill its frame; the official packages would read beyond them."""
    if table.rle_counts is None or table.rle_sizes is None:
        return
    for start in range(0, len(table), _MASKS_AT_ONCE):
        part = slice(start, start + _MASKS_AT_ONCE)
        pixels = covered_pixels(table.rle_counts[part].to_pylist())
        wrong = np.flatnonzero(pixels != table.rle_sizes[part].astype(np.int64).prod(axis=1))
        if len(wrong):
            raise DataError(
                f"{table.place(start + int(wrong[0]))}: the runs of the mask do not fill an image of size "
                f"{table.rle_sizes[start + wrong[0]].tolist()}. Write masks with the COCO tools."
            )
