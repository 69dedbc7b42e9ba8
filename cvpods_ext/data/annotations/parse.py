"""Second pass: check the flat columns of a json, sort them by image, write them as one Arrow IPC file.

Shapes: N = images, M = annotations in the json, K = annotations kept.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations import columns as raw
from cvpods_ext.data.annotations import ragged
from cvpods_ext.data.annotations.image_columns import ImageColumns
from cvpods_ext.data.category_tables import Category
from cvpods_ext.errors import DataError

IMAGES_PER_BATCH = 4096
_VALUES_PER_CHECK = 1 << 22

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("file_name", pa.string()),
        ("coco_url", pa.string()),
        ("negative_labels", pa.list_(pa.int32())),
        ("not_exhaustive_labels", pa.list_(pa.int32())),
        ("annotation_id", pa.list_(pa.int64())),
        ("box", pa.list_(pa.list_(pa.float64(), 4))),  # XYXY
        ("label", pa.list_(pa.int32())),
        ("area", pa.list_(pa.float64())),
        ("crowd", pa.list_(pa.uint8())),
        ("polygons", pa.list_(pa.list_(pa.list_(pa.float32())))),  # x, y, x, y, ...
        ("rle", pa.list_(pa.binary())),  # COCO compressed counts, empty for polygons
    ]
)


@dataclass(frozen=True)
class Checked:
    """What the second pass found out about the raw columns.

    `image` (M,) and `label` (M,) are positions in the lists of images and categories, -1 where unknown; `problem` (M,)
    indexes `annotation_columns.DROPPED`; `noted` counts oddities that do not cost an annotation.
    """

    image: np.ndarray
    label: np.ndarray
    problem: np.ndarray
    noted: Mapping[str, int]

    @property
    def dropped(self) -> dict[str, int]:
        """How many annotations are dropped, by reason."""
        counts = np.bincount(self.problem, minlength=len(raw.DROPPED))
        return {kind: int(count) for kind, count in zip(raw.DROPPED[1:], counts[1:], strict=True) if count}


def check(columns: Mapping[str, np.ndarray], images: ImageColumns, category_ids: np.ndarray) -> Checked:
    """Find every annotation that refers to nothing or has no usable box or mask; the first reason found counts."""
    image_ids = np.asarray(images.ids, np.int64)
    image = lookup(image_ids, columns["image_id"])
    label = lookup(category_ids, columns["category_id"])
    problem = np.array(columns["problem"])
    height, width = (np.asarray(side, np.int64)[image] for side in (images.heights, images.widths))
    x, y, w, h = columns["box"].T
    rle_size, rle_length = columns["rle_size"], columns["rle_length"]
    bad_rle = (rle_length > 0) & ((rle_size[:, 0] != height) | (rle_size[:, 1] != width))
    no_mask = (rle_length == 0) & (columns["rings"] == 0)
    with np.errstate(invalid="ignore"):
        findings = (
            (raw.NO_IMAGE, image < 0),
            (raw.NO_CATEGORY, label < 0),
            (raw.BOX_NOT_FINITE, ~np.isfinite(columns["box"]).all(axis=1)),
            (raw.BOX_EMPTY, ~((w > 0) & (h > 0))),
            (raw.BOX_OUTSIDE, (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)),
            (raw.POLYGON_NOT_FINITE, _has_non_finite_polygon(columns)),
            (raw.BAD_RLE, bad_rle),
            (raw.NO_MASK, no_mask & bool((~no_mask).any())),
        )
    for code, found in findings:
        problem[(problem == 0) & found] = code
    ids = columns["id"]
    noted = {
        "crowd annotation, not trained on": int((columns["crowd"] != 0)[problem == 0].sum()),
        "annotation id given twice or missing": len(ids) - len(np.unique(ids[ids >= 0])),
    }
    return Checked(image, label, problem, {kind: count for kind, count in noted.items() if count})


def lookup(sorted_or_not: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Position of every wanted id in a list of distinct ids, -1 where it is not there."""
    if len(sorted_or_not) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(sorted_or_not, kind="stable")
    ids = sorted_or_not[order]
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, order[at], -1)


def _has_non_finite_polygon(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(M,) bool; the coordinates are looked at piece by piece since they are the bulk of a json."""
    coordinates = columns["coordinates"]
    bad = [
        start + np.flatnonzero(~np.isfinite(coordinates[start : start + _VALUES_PER_CHECK]))
        for start in range(0, len(coordinates), _VALUES_PER_CHECK)
    ]
    found = np.zeros(len(columns["rings"]), bool)
    if any(len(piece) for piece in bad):
        ring = np.searchsorted(ragged.starts_of(columns["points"]) * 2, np.concatenate(bad), side="right") - 1
        found[np.searchsorted(ragged.starts_of(columns["rings"]), ring, side="right") - 1] = True
    return found


def write(
    path: Path,
    columns: Mapping[str, np.ndarray],
    images: ImageColumns,
    categories: tuple[Category, ...],
    checked: Checked,
    facts: Mapping[str, Any],
) -> None:
    """Write the kept annotations, one row per image in json order; `facts` go into the schema metadata."""
    kept = np.flatnonzero(checked.problem == 0)
    kept = kept[np.argsort(checked.image[kept], kind="stable")]
    first_of_image = ragged.starts_of(np.bincount(checked.image[kept], minlength=len(images.ids)))
    gather = _Gather(columns, checked.label)
    category_ids = np.array([category.id for category in categories], np.int64)
    per_image = _image_arrays(images, category_ids)
    metadata = {
        "categories": json.dumps([asdict(category) for category in categories]),
        "facts": json.dumps(dict(facts)),
    }
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA.with_metadata(metadata)) as writer:
        for start in range(0, len(images.ids), IMAGES_PER_BATCH):
            stop = min(start + IMAGES_PER_BATCH, len(images.ids))
            starts = first_of_image[start : stop + 1]
            rows = kept[starts[0] : starts[-1]]
            arrays = [column[start:stop] for column in per_image]
            arrays += [_lists(starts - starts[0], values) for values in gather(rows)]
            writer.write_batch(pa.record_batch([_flat(a) for a in arrays], schema=SCHEMA))


class _Gather:
    """Annotation fields of chosen rows, as Arrow arrays in the order of SCHEMA."""

    def __init__(self, columns: Mapping[str, np.ndarray], label: np.ndarray) -> None:
        self._columns, self._label = columns, label
        self._rings = ragged.starts_of(columns["rings"])
        self._points = ragged.starts_of(columns["points"])
        self._rle = ragged.starts_of(columns["rle_length"])

    def __call__(self, rows: np.ndarray) -> list[pa.Array]:
        columns = self._columns
        boxes = columns["box"][rows]
        boxes[:, 2:] += boxes[:, :2]
        rings = ragged.positions(self._rings, rows)
        points = ragged.positions(self._points, rings)
        vertices = columns["coordinates"].reshape(-1, 2)[points]
        coordinates = _lists(ragged.starts_of(2 * columns["points"][rings]), pa.array(vertices.reshape(-1)))
        rle = columns["rle"][ragged.positions(self._rle, rows)]
        rle_starts = ragged.starts_of(columns["rle_length"][rows])
        return [
            pa.array(columns["id"][rows]),
            pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), 4),
            pa.array(self._label[rows].astype(np.int32)),
            pa.array(columns["area"][rows]),
            pa.array(columns["crowd"][rows]),
            _lists(ragged.starts_of(columns["rings"][rows]), coordinates),
            pa.BinaryArray.from_buffers(
                pa.binary(), len(rows), [None, pa.py_buffer(rle_starts.astype(np.int32)), pa.py_buffer(rle)]
            ),
        ]


def _lists(starts: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), values)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _image_arrays(images: ImageColumns, category_ids: np.ndarray) -> list[Any]:
    """The columns of SCHEMA that describe the image itself, in its order."""
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
    """List every dropped annotation, so that its author can mend it."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("annotation_id", "image_id", "category_id", "problem"))
        for row in np.flatnonzero(checked.problem):
            identity = [int(columns[name][row]) for name in ("id", "image_id", "category_id")]
            writer.writerow((*identity, raw.DROPPED[checked.problem[row]]))


def require(path: Path, images: ImageColumns, categories: tuple[Category, ...]) -> None:
    """DataError unless there is at least one image and one category."""
    if not categories:
        raise DataError(f"{path} has no 'categories'; is it a detection result instead of an annotation file?")
    if len(images.ids) == 0:
        why = "; ".join(f"{count} x {kind}" for kind, count in images.dropped.items())
        raise DataError(f"{path} has no usable 'images'" + (f" ({why})" if why else "; is it an annotation file?"))
