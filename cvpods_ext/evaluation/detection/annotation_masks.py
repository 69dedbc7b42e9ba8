"""Masks of an annotation file, drawn and measured once and kept beside its annotation cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.masks import mask_boxes, rle_tools
from cvpods_ext.runtime.files import atomic_path
from cvpods_ext.runtime.progress import track

FORMAT = 1  # of the file; raise it when its columns or how masks are drawn change
COLUMNS = ("x", "y", "w", "h", "area")


def drawn(annotations: Annotations) -> pa.Table:
    """One row per annotation in the order of `Annotations.every`: rle, the tight box x, y, w, h, and area in pixels.

    An annotation without a usable mask gets an empty one. DataError if no annotation of the file has one.
    """
    if not annotations.facts["has_masks"] and annotations.facts["annotations"]:
        raise DataError(
            f"{annotations.paths.annotations}: no annotation has a mask. Evaluate with test.metrics=('bbox',), or add "
            "segmentations."
        )
    path = annotations.arrow.with_suffix(f".masks-{FORMAT}.arrow")
    kept = _read(path)
    if kept is None:
        parts = [
            _of_image(annotations, i) for i in track(range(len(annotations)), f"masks of {annotations.paths.name}")
        ]
        kept = pa.concat_tables(parts).combine_chunks()
        with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), kept.schema) as writer:
            writer.write_table(kept)
    return kept


def _read(path: Path) -> pa.Table | None:
    """The file, or None if it is absent or damaged; it is then made again."""
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowInvalid):
        return None


def _of_image(annotations: Annotations, position: int) -> pa.Table:
    height, width = annotations.size(position)
    polygons, encoded = annotations.polygons(position), annotations.rle(position)
    rles = [
        {"size": [height, width], "counts": counts} if counts else _draw(polygons.rings(i), height, width)
        for i, counts in enumerate(encoded)
    ]
    areas = np.asarray(rle_tools.area(rles) if rles else (), np.float64).reshape(-1)
    measured = dict(zip(COLUMNS, (*mask_boxes(rles).T, areas), strict=True))
    return pa.table({"rle": pa.array([rle["counts"] for rle in rles], pa.binary()), **measured})


def _draw(rings: list[np.ndarray], height: int, width: int) -> dict[str, Any]:
    if not rings:
        return rle_tools.fr_py_objects({"size": [height, width], "counts": [height * width]}, height, width)
    parts = rle_tools.fr_py_objects([ring.tolist() for ring in rings], height, width)
    return parts[0] if len(parts) == 1 else rle_tools.merge(parts)


def full(height: int, width: int) -> bytes:
    """Compressed counts of a mask that covers its whole image."""
    return rle_tools.fr_py_objects({"size": [height, width], "counts": [0, height * width]}, height, width)["counts"]
