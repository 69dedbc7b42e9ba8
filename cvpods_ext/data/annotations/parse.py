"""From the checked columns of a json to one Arrow IPC file, sorted by image.

Every annotation of a known image is kept, with what is wrong with it, since evaluation counts or exempts objects that
training leaves out.

Shapes: N = images, M = annotations in the json, K = annotations kept.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations import ragged
from cvpods_ext.data.annotations.check import REASONS, Checked, lookup
from cvpods_ext.data.annotations.image_columns import ImageColumns
from cvpods_ext.data.annotations.polygon_clip import cut_far
from cvpods_ext.data.category_tables import Category
from cvpods_ext.errors import DataError

IMAGES_PER_BATCH = 4096
HUNDREDTHS = 100.0
_VALUES_PER_CHECK = 1 << 19


def schema(coordinates: pa.DataType) -> pa.Schema:
    """One row per image. `coordinates` are int32 hundredths of a pixel where these are exact, else float64 pixels."""
    return pa.schema(
        [
            ("image_id", pa.int64()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("file_name", pa.string()),
            ("coco_url", pa.string()),
            ("negative_labels", pa.list_(pa.int32())),
            ("not_exhaustive_labels", pa.list_(pa.int32())),
            ("annotation_id", pa.list_(pa.int64())),
            ("box", pa.list_(pa.list_(pa.float64(), 4))),  # XYWH
            ("label", pa.list_(pa.int32())),  # -1 for an unknown category
            ("area", pa.list_(pa.float64())),
            ("crowd", pa.list_(pa.uint8())),
            ("ignore", pa.list_(pa.uint8())),
            ("reference", pa.list_(pa.uint8())),  # policy.Reference
            ("box_problem", pa.list_(pa.uint8())),  # policy.Box
            ("mask_problem", pa.list_(pa.uint8())),  # policy.Mask
            ("polygons", pa.list_(pa.list_(pa.list_(coordinates)))),  # x, y, x, y, ...
            ("rle", pa.list_(pa.binary())),  # COCO compressed counts, empty for polygons
        ]
    )


def write(
    path: Path,
    columns: Mapping[str, np.ndarray],
    images: ImageColumns,
    categories: tuple[Category, ...],
    checked: Checked,
    facts: Mapping[str, Any],
) -> None:
    """Write one row per image in json order, its annotations in json order; `facts` go into the schema metadata."""
    kept = np.flatnonzero(checked.image >= 0)
    kept = kept[np.argsort(checked.image[kept], kind="stable")]
    first_of_image = ragged.starts_of(np.bincount(checked.image[kept], minlength=len(images.ids)))
    gather = _Gather(columns, checked, images)
    category_ids = np.array([category.id for category in categories], np.int64)
    per_image = _image_arrays(images, category_ids)
    metadata = {
        "categories": json.dumps([asdict(category) for category in categories]),
        "facts": json.dumps(dict(facts)),
    }
    full_schema = schema(gather.coordinates).with_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, full_schema) as writer:
        for start in range(0, len(images.ids), IMAGES_PER_BATCH):
            stop = min(start + IMAGES_PER_BATCH, len(images.ids))
            starts = first_of_image[start : stop + 1]
            rows = kept[starts[0] : starts[-1]]
            arrays = [column[start:stop] for column in per_image]
            arrays += [_lists(starts - starts[0], values) for values in gather(rows)]
            writer.write_batch(pa.record_batch([_flat(a) for a in arrays], schema=full_schema))


def _are_hundredths(coordinates: np.ndarray) -> bool:
    """Whether every coordinate is the float nearest to a whole number of hundredths, as in LVIS and COCO."""
    for start in range(0, len(coordinates), _VALUES_PER_CHECK):
        piece = np.asarray(coordinates[start : start + _VALUES_PER_CHECK])
        with np.errstate(invalid="ignore", over="ignore"):
            exact = (np.rint(piece * HUNDREDTHS) / HUNDREDTHS == piece) & (np.abs(piece) < 1 << 24)
        if not exact.all():
            return False
    return True


class _Gather:
    """Annotation fields of chosen rows, as Arrow arrays in the order of `schema`."""

    def __init__(self, columns: Mapping[str, np.ndarray], checked: Checked, images: ImageColumns) -> None:
        self._columns, self._checked = columns, checked
        self._sizes = np.stack([np.asarray(side, np.int64) for side in (images.heights, images.widths)], axis=1)
        self._rings = ragged.starts_of(columns["rings"])
        self._points = ragged.starts_of(columns["points"])
        self._rle = ragged.starts_of(columns["rle_length"])
        exact = not checked.far.any() and _are_hundredths(columns["coordinates"])
        self.coordinates = pa.int32() if exact else pa.float64()

    def __call__(self, rows: np.ndarray) -> list[pa.Array]:
        columns, checked = self._columns, self._checked
        has_mask = checked.mask_problem[rows] == 0
        rle_lengths = np.where(has_mask, columns["rle_length"][rows], 0)
        rle = columns["rle"][ragged.positions(self._rle, rows[has_mask])]
        rle_starts = ragged.starts_of(rle_lengths).astype(np.int32)
        return [
            pa.array(columns["id"][rows]),
            pa.FixedSizeListArray.from_arrays(pa.array(checked.boxes[rows].reshape(-1)), 4),
            pa.array(checked.label[rows].astype(np.int32)),
            pa.array(checked.areas[rows]),
            *(pa.array(columns[name][rows]) for name in ("crowd", "ignore")),
            pa.array(checked.reference[rows]),
            pa.array(checked.box_problem[rows]),
            pa.array(checked.mask_problem[rows]),
            self._polygons(rows, has_mask),
            pa.BinaryArray.from_buffers(
                pa.binary(), len(rows), [None, pa.py_buffer(rle_starts), pa.py_buffer(np.ascontiguousarray(rle))]
            ),
        ]

    def _polygons(self, rows: np.ndarray, has_mask: np.ndarray) -> pa.Array:
        rings = ragged.positions(self._rings, rows[has_mask])
        points = ragged.positions(self._points, rings)
        masks = ragged.Polygons(
            vertices=self._columns["coordinates"].reshape(-1, 2)[points],
            polygon_starts=ragged.starts_of(self._columns["points"][rings]),
            instance_starts=ragged.starts_of(np.where(has_mask, self._columns["rings"][rows], 0)),
        )
        far = np.flatnonzero(self._checked.far[rows])
        if len(far):
            masks = cut_far(masks, far, self._sizes[self._checked.image[rows]])
        values = masks.vertices.reshape(-1)
        if self.coordinates == pa.int32():
            values *= HUNDREDTHS  # a copy of this batch's own; in place, since these are the bulk of the memory
            values = np.rint(values, out=values).astype(np.int32)
        return _lists(masks.instance_starts, _lists(2 * masks.polygon_starts, pa.array(values)))


def _lists(starts: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), values)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _image_arrays(images: ImageColumns, category_ids: np.ndarray) -> list[Any]:
    """The columns of `schema` that describe the image itself, in its order."""
    arrays: list[Any] = [
        pa.array(np.asarray(images.ids, np.int64)),
        pa.array(np.asarray(images.heights, np.int32)),
        pa.array(np.asarray(images.widths, np.int32)),
        images.names("file_name"),
        images.names("coco_url"),
    ]
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        ids, starts = images.id_lists(key)
        labels = lookup(category_ids, ids)
        known = labels >= 0
        arrays.append(_lists(ragged.starts_of(known)[starts], pa.array(labels[known].astype(np.int32))))
    return arrays


def write_dropped(path: Path, columns: Mapping[str, np.ndarray], checked: Checked) -> None:
    """List every annotation that is not trained on, so that its author can mend it."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("annotation_id", "image_id", "category_id", "problem"))
        problems = checked.problems(masks=True)
        for row in np.flatnonzero(problems):
            identity = [int(columns[name][row]) for name in ("id", "image_id", "category_id")]
            writer.writerow((*identity, REASONS[problems[row]]))


def require(path: Path, images: ImageColumns, categories: tuple[Category, ...]) -> None:
    """DataError unless there are an image and a category, and the federated lists of the images are lists of ids."""
    for key, value in images.broken_lists.items():
        raise DataError(
            f"{path}: {key} of an image must be a list of category ids, got {value}. Which classes are verified absent "
            "decides what counts as a false positive, so it is not guessed"
        )
    if not categories:
        raise DataError(f"{path} has no 'categories'; is it a detection result instead of an annotation file?")
    if len(images.ids) == 0:
        why = "; ".join(f"{count} x {kind}" for kind, count in images.dropped.items())
        raise DataError(f"{path} has no usable 'images'" + (f" ({why})" if why else "; is it an annotation file?"))
