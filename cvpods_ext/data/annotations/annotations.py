"""Annotations of one data set, memory-mapped: every process and worker shares the same pages.

Shapes: N = images, K = annotations kept, n = annotations of one image.
"""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations import cache
from cvpods_ext.data.annotations.file_names import image_file
from cvpods_ext.data.annotations.parse import HUNDREDTHS, IMAGES_PER_BATCH
from cvpods_ext.data.annotations.ragged import Polygons
from cvpods_ext.data.category_tables import Category
from cvpods_ext.data.paths import DatasetPaths
from cvpods_ext.errors import DataError

_PROBLEMS = ("reference", "box_problem", "mask_problem")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instances:
    """Annotations of one image that can be trained on, crowds included.

    boxes (n, 4) float64 XYXY; labels (n,) int64; areas (n,) float64; crowd (n,) bool; annotation_ids (n,) int64.
    Masks are polygons, laid out as in `structures.PolygonMasks` (vertices (V, 2) float32), or COCO compressed counts in
    `rle`, b"" for an instance with polygons; both are empty in a data set of boxes only.
    """

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    annotation_ids: np.ndarray
    vertices: np.ndarray
    polygon_starts: np.ndarray
    instance_starts: np.ndarray
    rle: list[bytes]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class AnnotationIndex:
    """Which label lies in which image, for statistics over the whole set.

    image (K,) int64 positions, label (K,) int32, crowd (K,) bool; grouped by image.
    """

    image: np.ndarray
    label: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class EveryAnnotation:
    """All annotations of known images, those that training leaves out included, grouped by image.

    image (A,) int64 positions, label (A,) int32, -1 where the category is unknown, boxes (A, 4) float64 XYWH, areas
    (A,) float64, crowd and ignore (A,) bool; reference, box_problem and mask_problem (A,) uint8, members of
    `policy.Reference`, `policy.Box` and `policy.Mask`.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    reference: np.ndarray
    box_problem: np.ndarray
    mask_problem: np.ndarray


class Annotations:
    """The Arrow file of a data set. Pickling it passes on the path alone, so workers map the file themselves.

    It shows what can be trained on: annotations with a usable box, and with `masks` a usable mask, unless the data set
    has none at all. `every` shows the rest as well.
    """

    def __init__(self, arrow: Path, paths: DatasetPaths, masks: bool = True) -> None:
        self.arrow, self.paths, self.masks = arrow, paths, masks

    def __reduce__(self) -> tuple[Any, ...]:
        return Annotations, (self.arrow, self.paths, self.masks)

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(self.arrow), "r"))
            return [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"annotation cache {self.arrow} is unreadable ({error}); delete it, it will be made again"
            ) from error

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        return {key.decode(): json.loads(value) for key, value in self._batches[0].schema.metadata.items()}

    @property
    def facts(self) -> dict[str, Any]:
        """`json`, `sha256`, `federated`, `has_masks`, and what was found wrong: `images_dropped`, `noted`, `dropped`
        and, for networks without masks, `dropped_of_boxes`.
        """
        return self._metadata["facts"]

    @property
    def sha256(self) -> str:
        """Digest of the annotation files' content; those of several files count in their order. Images are not read."""
        return self.facts["sha256"]

    @property
    def dropped(self) -> dict[str, int]:
        """How many annotations are not trained on, by reason."""
        return self.facts["dropped" if self.masks else "dropped_of_boxes"]

    @property
    def dropped_list(self) -> Path:
        """CSV of every dropped annotation; absent if none was dropped."""
        return self.arrow.with_suffix(".dropped.csv")

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        """In label order, which is the order of ascending ids."""
        return tuple(Category(**entry) for entry in self._metadata["categories"])

    @property
    def num_classes(self) -> int:
        """Foreground classes."""
        return len(self.categories)

    @cached_property
    def category_ids(self) -> np.ndarray:
        """(num_classes,) int64: label -> id in the json."""
        return np.array([category.id for category in self.categories], np.int64)

    @cached_property
    def image_ids(self) -> np.ndarray:
        """(N,) int64 in json order."""
        return self._image_column("image_id")

    @cached_property
    def heights(self) -> np.ndarray:
        """(N,) int32 pixels, as the json says."""
        return self._image_column("height")

    @cached_property
    def widths(self) -> np.ndarray:
        """(N,) int32 pixels, as the json says."""
        return self._image_column("width")

    def _image_column(self, name: str) -> np.ndarray:
        return np.concatenate([batch.column(name).to_numpy() for batch in self._batches])

    @cached_property
    def index(self) -> AnnotationIndex:
        """Labels of all annotations; 13 bytes an annotation, built when first asked for."""
        usable = self._all_usable
        crowd = self._values("crowd").astype(bool)
        return AnnotationIndex(self._image_of_each[usable], self._values("label")[usable], crowd[usable])

    def boxes(self) -> np.ndarray:
        """(K, 4) float64 XYXY pixels of all annotations, in the order of `index`; 32 bytes each, not kept."""
        boxes = self._boxes()[self._all_usable]
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def every(self) -> EveryAnnotation:
        """All annotations, usable or not; made anew by each call."""
        return EveryAnnotation(
            image=self._image_of_each,
            label=self._values("label"),
            boxes=self._boxes(),
            areas=self._values("area"),
            crowd=self._values("crowd").astype(bool),
            ignore=self._values("ignore").astype(bool),
            reference=self._values("reference"),
            box_problem=self._values("box_problem"),
            mask_problem=self._values("mask_problem"),
        )

    @property
    def _image_of_each(self) -> np.ndarray:
        return self.label_lists("label")[1]

    def _boxes(self) -> np.ndarray:
        """(A, 4) float64 XYWH of every annotation."""
        return np.concatenate([b.column("box").values.flatten().to_numpy() for b in self._batches]).reshape(-1, 4)

    def _values(self, name: str) -> np.ndarray:
        return np.concatenate([batch.column(name).values.to_numpy() for batch in self._batches])

    @cached_property
    def _some_unusable(self) -> bool:
        """Whether the cache holds annotations that are not trained on; most files have none."""
        return bool(self.dropped)

    @property
    def _all_usable(self) -> np.ndarray:
        return self._usable(*map(self._values, _PROBLEMS))

    def _usable(self, reference: np.ndarray, box_problem: np.ndarray, mask_problem: np.ndarray) -> np.ndarray:
        usable = (reference == 0) & (box_problem == 0)
        return usable & (mask_problem == 0) if self.masks and self.facts["has_masks"] else usable

    def _row(self, position: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"image {position} of {len(self)}")
        return self._batches[position // IMAGES_PER_BATCH], position % IMAGES_PER_BATCH

    def image_path(self, position: int) -> Path:
        """Where the image file should lie; whether it does is not checked. DataError for a name that leaves the folder.

        Backslashes stand for slashes unless a file is called so.
        """
        batch, row = self._row(position)
        file_name, url = batch.column("file_name")[row].as_py(), batch.column("coco_url")[row].as_py()
        if url and (self.paths.schema == "lvis" or not file_name):
            file_name = "/".join(url.split("/")[-2:])
        if not file_name:
            raise DataError(
                f"{self.paths.annotations}: image {self.image_ids[position]} has no file_name that can be looked up"
            )
        return image_file(self.paths, file_name)

    def size(self, position: int) -> tuple[int, int]:
        """(height, width) as the json says."""
        return int(self.heights[position]), int(self.widths[position])

    def negative_labels(self, position: int) -> np.ndarray:
        """Labels verified absent from the image, int64."""
        return self._list("negative_labels", position).astype(np.int64)

    def not_exhaustive_labels(self, position: int) -> np.ndarray:
        """Labels of which not every instance is annotated, int64."""
        return self._list("not_exhaustive_labels", position).astype(np.int64)

    def label_lists(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A column of labels, such as `negative_labels`, of all images: the labels, and the position of their image."""
        counts = np.concatenate([np.diff(batch.column(name).offsets.to_numpy()) for batch in self._batches])
        return self._values(name).astype(np.int64), np.repeat(np.arange(len(counts)), counts)

    def _list(self, name: str, position: int) -> np.ndarray:
        batch, row = self._row(position)
        return _slice(batch.column(name), row).to_numpy(zero_copy_only=False)

    def instances(self, position: int) -> Instances:
        """The usable annotations of one image; vertices as float32, which resolves 6e-5 pixels at 1000."""
        batch, row = self._row(position)
        rows = None
        if self._some_unusable:
            usable = self._usable(*(self._list(name, position) for name in _PROBLEMS))
            rows = None if usable.all() else np.flatnonzero(usable)
        boxes = _slice(batch.column("box"), row).flatten().to_numpy().reshape(-1, 4).copy()
        boxes[:, 2:] += boxes[:, :2]
        polygons = self.polygons(position)
        rle = self.rle(position)
        labels, areas, crowd, ids = (self._list(n, position) for n in ("label", "area", "crowd", "annotation_id"))
        if rows is not None:
            boxes, labels, areas, crowd, ids = (column[rows] for column in (boxes, labels, areas, crowd, ids))
            polygons, rle = polygons.take(rows), [rle[i] for i in rows]
        return Instances(
            boxes=boxes,
            labels=labels.astype(np.int64),
            areas=areas,
            crowd=crowd.astype(bool),
            annotation_ids=ids,
            vertices=polygons.vertices.astype(np.float32),
            polygon_starts=polygons.polygon_starts,
            instance_starts=polygons.instance_starts,
            rle=rle,
        )

    def polygons(self, position: int) -> Polygons:
        """Polygons of every annotation of one image, as written, to the last digit."""
        batch, row = self._row(position)
        polygons, instance_starts = _nested(_slice(batch.column("polygons"), row))
        coordinates, coordinate_starts = _nested(polygons)
        values = coordinates.to_numpy()
        if values.dtype == np.int32:
            values = values / HUNDREDTHS
        return Polygons(values.reshape(-1, 2), coordinate_starts // 2, instance_starts)

    def rle(self, position: int) -> list[bytes]:
        """Compressed counts of every annotation of one image, b"" for polygons."""
        batch, row = self._row(position)
        return _slice(batch.column("rle"), row).to_pylist()


def _slice(lists: pa.ListArray, row: int) -> pa.Array:
    """The values of one row, without a copy."""
    start, stop = lists.offsets[row].as_py(), lists.offsets[row + 1].as_py()
    return lists.values[start:stop]


def _nested(lists: pa.ListArray) -> tuple[pa.Array, np.ndarray]:
    """One level down: the values of all rows and where each row starts among them, (rows + 1,) int64."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.values[offsets[0] : offsets[-1]], offsets - offsets[0]


def load(paths: DatasetPaths, masks: bool = True) -> Annotations:
    """Open the annotations of a data set, parsing its json first if that was never done for its content.

    Tells, once a process, what is left out: of a network that learns `masks`, or only boxes. DataError for images that
    cannot be looked up.
    """
    annotations = read_cached(paths, masks)
    if annotations.facts["images_nameless"]:
        raise DataError(
            f"{paths.annotations}: {annotations.facts['images_nameless']} images have neither a file_name nor a "
            "coco_url that can be looked up. Add the names, or remove these images."
        )
    if annotations.facts["name_outside"] and paths.schema != "lvis":
        image_file(paths, annotations.facts["name_outside"])
    name = paths.annotations.name
    for problem, count in {**annotations.facts["images_dropped"], **annotations.dropped}.items():
        _tell_once(annotations.arrow, logging.WARNING, f"{name}: {count} x {problem}")
    crowds = annotations.facts["crowds"]
    for problem, count in {**annotations.facts["noted"], "crowd annotation, not trained on": crowds}.items():
        if count:
            _tell_once(annotations.arrow, logging.INFO, f"{name}: {count} x {problem}")
    return annotations


def read_cached(paths: DatasetPaths, masks: bool = True) -> Annotations:
    """As `load`, without a word about what is left out: for uses that count it by other rules."""
    return Annotations(cache.cached(paths.annotations), paths, masks)


@functools.cache
def _tell_once(arrow: Path, level: int, message: str) -> None:
    """A process opens a file again for every part that reads it, and shall not repeat itself."""
    logger.log(level, message)
