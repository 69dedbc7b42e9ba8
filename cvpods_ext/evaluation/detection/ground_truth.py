"""The annotation file as the evaluators need it: columns instead of dicts, LVIS's federated lists as sorted keys.

Shapes: I = images, K = categories, both by sorted id; A = annotations in file order. A key is image * K + category.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.annotation_json import BOX, MASK, cached_table
from cvpods_ext.evaluation.detection.protocol import GROUPS


@dataclass(frozen=True)
class GroundTruth:
    """Annotations of a validation split.

    image_ids (I,), image_sizes (I, 2) height, width; category_ids (K,), frequency (K,) positions in GROUPS;
    per annotation: images, categories (A,) positions, boxes (A, 4) float64 XYWH, areas (A,), crowd and ignore (A,)
    bool; if masks were read rles (A,) compressed COCO RLE, mask_boxes (A, 4) tight XYWH and mask_areas (A,) pixels.
    `negatives` and `not_exhaustive` are sorted keys of the verified absent and of the incompletely annotated pairs.
    `notes` says what had to be derived; `sha256` is the json's.
    """

    path: Path
    sha256: str
    federated: bool
    image_ids: np.ndarray
    image_sizes: np.ndarray
    category_ids: np.ndarray
    category_names: list[str]
    frequency: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    rles: pa.Array | None
    mask_boxes: np.ndarray | None
    mask_areas: np.ndarray | None
    negatives: np.ndarray
    not_exhaustive: np.ndarray
    notes: dict[str, Any]

    @property
    def num_categories(self) -> int:
        """Categories, annotated or not."""
        return len(self.category_ids)

    @cached_property
    def keys(self) -> np.ndarray:
        """(A,) image * K + category of every annotation."""
        return self.images * self.num_categories + self.categories

    def cells(self, image_ids: np.ndarray, category_ids: np.ndarray) -> np.ndarray:
        """Keys of (image, category) pairs given by their ids, which must be known."""
        images = np.searchsorted(self.image_ids, image_ids)
        return images * self.num_categories + np.searchsorted(self.category_ids, category_ids)

    @cached_property
    def by_cell(self) -> np.ndarray:
        """(A,) positions of the annotations by ascending key, in file order within a cell."""
        return np.argsort(self.keys, kind="stable")

    @cached_property
    def _ordered_keys(self) -> np.ndarray:
        return self.keys[self.by_cell]

    def rows_of_cells(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First row and row after the last in `by_cell` of each cell in `keys`; equal where nothing is annotated."""
        return np.searchsorted(self._ordered_keys, keys, "left"), np.searchsorted(self._ordered_keys, keys, "right")

    @cached_property
    def verified(self) -> np.ndarray:
        """Sorted keys of the pairs in which every detection is right or wrong: annotated or verified absent."""
        return np.union1d(self.keys, self.negatives)

    def take(self, positions: np.ndarray) -> GroundTruth:
        """The annotations at `positions`, in that order; images, categories and lists stay."""
        chosen = ("images", "categories", "boxes", "areas", "crowd", "ignore", "mask_boxes", "mask_areas")
        columns = {name: getattr(self, name) for name in chosen}
        columns = {name: None if column is None else column[positions] for name, column in columns.items()}
        return replace(self, **columns, rles=None if self.rles is None else self.rles.take(pa.array(positions)))

    def rle_dicts(self, positions: np.ndarray) -> list[dict[str, Any]]:
        """Masks as COCO dicts."""
        assert self.rles is not None, "ground truth was read without masks"
        counts = self.rles.take(pa.array(positions)).to_pylist()
        sizes = self.image_sizes[self.images[positions]].tolist()
        return [{"size": size, "counts": count} for size, count in zip(sizes, counts, strict=True)]


def load(path: Path, masks: bool, train_image_counts: Sequence[int] | None = None) -> GroundTruth:
    """Read a COCO or LVIS json, from its cache if there is one; `masks=False` leaves the masks out.

    It is federated (LVIS) if a category has a frequency or an image has `neg_category_ids`. Absent frequencies are
    derived from `train_image_counts` (K,), else from the categories' `image_count`, else from this file's images.
    """
    path = Path(path)
    table, digest = cached_table(path, masks)
    header = json.loads(table.schema.metadata[b"header"])
    categories, notes = header["categories"], dict(header["notes"])
    column = {name: table.column(name).to_numpy() for name in table.column_names if name != "rle"}
    federated = header["negatives"] is not None or any("frequency" in category for category in categories)
    num_pairs = len(header["image_ids"]) * len(categories)
    negatives = header["negatives"]
    if federated and negatives is None:
        notes["negatives"] = "no image has neg_category_ids: every category counts as verified on every image"
        negatives = np.arange(num_pairs)
    own_counts = np.bincount(
        np.unique(column["image"] * len(categories) + column["category"]) % max(1, len(categories)),
        minlength=len(categories),
    )
    return GroundTruth(
        path=path,
        sha256=digest,
        federated=federated,
        image_ids=np.array(header["image_ids"], dtype=np.int64),
        image_sizes=np.array([header["heights"], header["widths"]], dtype=np.int64).T,
        category_ids=np.array([category["id"] for category in categories], dtype=np.int64),
        category_names=[str(category.get("name", category["id"])) for category in categories],
        frequency=_frequency(categories, train_image_counts, own_counts, path, notes),
        images=column["image"],
        categories=column["category"],
        boxes=np.stack([column[name] for name in BOX], axis=1),
        areas=column["area"],
        crowd=column["crowd"],
        ignore=column["ignore"],
        rles=table.column("rle").combine_chunks() if masks else None,
        mask_boxes=np.stack([column[name] for name in MASK[:4]], axis=1) if masks else None,
        mask_areas=column["mask_area"] if masks else None,
        negatives=np.asarray(negatives if negatives is not None else (), dtype=np.int64),
        not_exhaustive=np.array(header["not_exhaustive"], dtype=np.int64),
        notes=notes,
    )


def _frequency(
    categories: list[dict[str, Any]],
    train_image_counts: Sequence[int] | None,
    own_counts: np.ndarray,
    path: Path,
    notes: dict[str, Any],
) -> np.ndarray:
    """(K,) positions in GROUPS: as the file says, else by image counts (rare <= 10 < common <= 100 < frequent)."""
    if categories and all(category.get("frequency") in GROUPS for category in categories):
        return np.array([GROUPS.index(category["frequency"]) for category in categories])
    if train_image_counts is not None:
        if len(train_image_counts) != len(categories):
            raise DataError(f"{len(train_image_counts)} image counts for the {len(categories)} categories of {path}.")
        counts, origin = np.asarray(train_image_counts), "training image counts"
    elif categories and all("image_count" in category for category in categories):
        counts, origin = np.array([category["image_count"] for category in categories]), "image_count of the categories"
    else:
        counts, origin = own_counts, f"image counts of {path.name} itself"
    notes["frequency"] = f"derived from {origin}"
    return np.searchsorted([10, 100], counts, side="left")
