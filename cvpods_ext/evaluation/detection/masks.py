"""Masks of the annotation file and of detections, brought to compressed COCO RLE and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pyarrow as pa

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.detections import DetectionTable

rle_tools = hotcoco.mask


@dataclass(frozen=True)
class Rasterised:
    """Masks of annotations: `counts` compressed RLE, `boxes` (A, 4) tight XYWH and `areas` (A,) in pixels."""

    counts: pa.Array
    boxes: np.ndarray
    areas: np.ndarray


def rasterise(
    segmentations: list[Any], sizes: np.ndarray, image_ids: np.ndarray, path: Path, notes: dict[str, Any]
) -> Rasterised:
    """Draw the json masks of A annotations in images of `sizes` (A, 2) height, width.

    A polygon of under three points is left out, since COCO's rasteriser takes four numbers for a box; an annotation
    that has no other becomes an empty mask, and `notes` counts such annotations. A missing mask or an RLE of another
    size is a DataError.
    """
    rles: list[dict[str, Any]] = []
    degenerate = 0
    for segmentation, (height, width), image_id in zip(segmentations, sizes.tolist(), image_ids.tolist(), strict=True):
        if isinstance(segmentation, dict):
            rles.append(_checked_rle(segmentation, height, width, image_id, path))
        elif isinstance(segmentation, list):
            rings = [ring.tolist() for ring in segmentation if len(ring) >= 6]
            degenerate += len(rings) < len(segmentation)
            rles.append(_draw(rings, height, width))
        else:
            raise DataError(
                f"{path}: an annotation on image {image_id} has no mask. Evaluate with test.metrics=('bbox',), "
                "or add segmentations."
            )
    if degenerate:
        notes["annotations_with_degenerate_polygons"] = degenerate
    areas = np.asarray(rle_tools.area(rles) if rles else (), dtype=np.float64).reshape(-1)
    return Rasterised(pa.array([rle["counts"] for rle in rles], pa.binary()), mask_boxes(rles), areas)


def _draw(rings: list[list[float]], height: int, width: int) -> dict[str, Any]:
    if not rings:
        return rle_tools.fr_py_objects({"size": [height, width], "counts": [height * width]}, height, width)
    parts = rle_tools.fr_py_objects(rings, height, width)
    return parts[0] if len(parts) == 1 else rle_tools.merge(parts)


def _checked_rle(rle: dict[str, Any], height: int, width: int, image_id: int, path: Path) -> dict[str, Any]:
    if "counts" not in rle or list(rle.get("size", ())) != [height, width]:
        raise DataError(
            f"{path}: an RLE of size {rle.get('size')} on image {image_id} of size {[height, width]} (height, width). "
            "Both must agree."
        )
    if isinstance(rle["counts"], list):
        return rle_tools.fr_py_objects({"size": [height, width], "counts": rle["counts"]}, height, width)
    counts = rle["counts"]
    return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


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
            f"{table.source}: a mask of size {table.rle_sizes[row].tolist()} on image {table.image_ids[row]} of size "
            f"{sizes[row].tolist()} (height, width). Masks must be in the pixels of the original image."
        )
    try:
        return np.asarray(rle_tools.area(rles), dtype=np.float64).reshape(-1)
    except ValueError as error:
        raise DataError(f"{table.source}: a mask is not a compressed COCO RLE ({error}).") from error


def require_masks(table: DetectionTable) -> None:
    """DataError if the detections are boxes only."""
    if len(table) and table.rle_counts is None:
        raise DataError(f"{table.source} holds boxes only; segm needs masks. Evaluate with test.metrics=('bbox',).")
