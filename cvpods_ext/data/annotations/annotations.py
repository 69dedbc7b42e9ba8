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
from cvpods_ext.data.annotations.parse import IMAGES_PER_BATCH
from cvpods_ext.data.category_tables import Category
from cvpods_ext.data.paths import DatasetPaths
from cvpods_ext.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instances:
    """Annotations of one image as the json has them, crowds included.

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


class Annotations:
    """The Arrow file of a data set. Pickling it passes on the path alone, so workers map the file themselves."""

    def __init__(self, arrow: Path, paths: DatasetPaths) -> None:
        self.arrow, self.paths = arrow, paths

    def __reduce__(self) -> tuple[Any, ...]:
        return Annotations, (self.arrow, self.paths)

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
        """`json`, `sha256`, `federated`, and what was found wrong: `images_dropped`, `dropped`, `noted`."""
        return self._metadata["facts"]

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
        counts = np.concatenate([np.diff(b.column("label").offsets.to_numpy()) for b in self._batches])
        labels, crowd = (
            np.concatenate([b.column(name).values.to_numpy() for b in self._batches]) for name in ("label", "crowd")
        )
        return AnnotationIndex(np.repeat(np.arange(len(counts)), counts), labels, crowd.astype(bool))

    def boxes(self) -> np.ndarray:
        """(K, 4) float64 XYXY pixels of all annotations, in the order of `index`; 32 bytes each, not kept."""
        return np.concatenate([b.column("box").values.flatten().to_numpy() for b in self._batches]).reshape(-1, 4)

    def _row(self, position: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"image {position} of {len(self)}")
        return self._batches[position // IMAGES_PER_BATCH], position % IMAGES_PER_BATCH

    def image_path(self, position: int) -> Path:
        """Where the image file should lie; it is not checked."""
        batch, row = self._row(position)
        file_name, url = batch.column("file_name")[row].as_py(), batch.column("coco_url")[row].as_py()
        if url and (self.paths.schema == "lvis" or not file_name):
            return self.paths.images.joinpath(*url.split("/")[-2:])
        return self.paths.images / file_name

    def size(self, position: int) -> tuple[int, int]:
        """(height, width) as the json says."""
        return int(self.heights[position]), int(self.widths[position])

    def negative_labels(self, position: int) -> np.ndarray:
        """Labels verified absent from the image, int64."""
        return self._list("negative_labels", position).astype(np.int64)

    def not_exhaustive_labels(self, position: int) -> np.ndarray:
        """Labels of which not every instance is annotated, int64."""
        return self._list("not_exhaustive_labels", position).astype(np.int64)

    def _list(self, name: str, position: int) -> np.ndarray:
        batch, row = self._row(position)
        return _slice(batch.column(name), row).to_numpy(zero_copy_only=False)

    def instances(self, position: int) -> Instances:
        """All annotations of one image."""
        batch, row = self._row(position)
        boxes = _slice(batch.column("box"), row).flatten().to_numpy().reshape(-1, 4)
        polygons, instance_starts = _nested(_slice(batch.column("polygons"), row))
        coordinates, coordinate_starts = _nested(polygons)
        return Instances(
            boxes=boxes,
            labels=self._list("label", position).astype(np.int64),
            areas=self._list("area", position),
            crowd=self._list("crowd", position).astype(bool),
            annotation_ids=self._list("annotation_id", position),
            vertices=coordinates.to_numpy().reshape(-1, 2),
            polygon_starts=coordinate_starts // 2,
            instance_starts=instance_starts,
            rle=_slice(batch.column("rle"), row).to_pylist(),
        )


def _slice(lists: pa.ListArray, row: int) -> pa.Array:
    """The values of one row, without a copy."""
    start, stop = lists.offsets[row].as_py(), lists.offsets[row + 1].as_py()
    return lists.values[start:stop]


def _nested(lists: pa.ListArray) -> tuple[pa.Array, np.ndarray]:
    """One level down: the values of all rows and where each row starts among them, (rows + 1,) int64."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.values[offsets[0] : offsets[-1]], offsets - offsets[0]


def load(paths: DatasetPaths) -> Annotations:
    """Open the annotations of a data set, parsing its json first if that was never done for its content."""
    annotations = Annotations(cache.cached(paths.annotations), paths)
    for kind in ("images_dropped", "dropped", "noted"):
        for problem, count in annotations.facts[kind].items():
            level = logging.INFO if kind == "noted" else logging.WARNING
            _tell_once(annotations.arrow, level, f"{paths.annotations.name}: {count} x {problem}")
    return annotations


@functools.cache
def _tell_once(arrow: Path, level: int, message: str) -> None:
    """A process opens a file again for every part that reads it, and shall not repeat itself."""
    logger.log(level, message)
