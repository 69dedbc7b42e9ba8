"""Masks of the annotation file and of detections, made safe for the evaluators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detections import DetectionTable

Segmentation = list[np.ndarray] | dict[str, Any]  # polygons as flat x, y arrays, or a COCO RLE


def usable_masks(
    segmentations: list[Any], sizes: np.ndarray, image_ids: np.ndarray, path: Path, notes: dict[str, Any]
) -> list[Segmentation]:
    """The masks of A annotations, in images of `sizes` (A, 2) height, width, without polygons of under 3 points.

    COCO's rasteriser takes four numbers for a box, so such polygons cannot be handed on; an annotation that has no
    other becomes an empty mask, and `notes` counts them. A missing mask or an RLE of another size is a DataError.
    """
    usable: list[Segmentation] = []
    degenerate = 0
    for segmentation, (height, width), image_id in zip(segmentations, sizes.tolist(), image_ids.tolist(), strict=True):
        if isinstance(segmentation, dict) and "counts" in segmentation:
            if list(segmentation.get("size", ())) != [height, width]:
                raise DataError(
                    f"{path}: an RLE of size {segmentation.get('size')} on image {image_id} of size {[height, width]} "
                    "(height, width). Both must agree."
                )
            usable.append(segmentation)
        elif isinstance(segmentation, list):
            rings = [ring for ring in segmentation if len(ring) >= 6]
            degenerate += len(rings) < len(segmentation)
            usable.append(rings or {"size": [height, width], "counts": [height * width]})
        else:
            raise DataError(
                f"{path}: an annotation on image {image_id} has no mask. Evaluate with test.tasks=('bbox',), "
                "or add segmentations."
            )
    if degenerate:
        notes["annotations_with_degenerate_polygons"] = degenerate
    return usable


def mask_areas(table: DetectionTable, sizes: np.ndarray) -> np.ndarray:
    """(N,) float64 pixels of each detection's mask; `sizes` (N, 2) height, width of the images they are on.

    A missing or unreadable mask, or one of another size than its image, is a DataError.
    """
    if table.rle_counts is None or table.rle_sizes is None:
        if len(table) == 0:
            return np.zeros(0)
        raise DataError(f"{table.source} holds boxes only; segm needs masks. Evaluate with test.tasks=('bbox',).")
    wrong = (table.rle_sizes != sizes).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{table.source}: a mask of size {table.rle_sizes[row].tolist()} on image {table.image_ids[row]} of size "
            f"{sizes[row].tolist()} (height, width). Masks must be in the pixels of the original image."
        )
    try:
        return np.asarray(hotcoco.mask.area(table.rles()), dtype=np.float64).reshape(-1)
    except ValueError as error:
        raise DataError(f"{table.source}: a mask is not a compressed COCO RLE ({error}).") from error
