"""First pass over the images and categories of an annotation json: columns, and what is wrong with them."""

from __future__ import annotations

import itertools
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations import ragged
from cvpods_ext.data.category_tables import Category
from cvpods_ext.errors import DataError

_STRINGS_IN_MEMORY = 1 << 14

NO_ID = "image without a whole-number id"
NO_SIZE = "image without height and width"
NO_FILE = "image without file_name and coco_url"
TWICE = "image id given twice"


class ImageColumns:
    """Columns of all usable images in json order; the others are counted in `dropped`."""

    def __init__(self) -> None:
        self.ids, self.heights, self.widths = array("q"), array("i"), array("i")
        self.dropped: dict[str, int] = {}
        self._seen: set[int] = set()
        self._names: dict[str, _Strings] = {"file_name": _Strings(), "coco_url": _Strings()}
        self._lists = {"neg_category_ids": _IdLists(), "not_exhaustive_category_ids": _IdLists()}

    def add(self, image: Any) -> None:
        """Append one image of the json, or count why not."""
        problem = self._problem(image)
        if problem:
            self.dropped[problem] = self.dropped.get(problem, 0) + 1
            return
        self._seen.add(image["id"])
        self.ids.append(image["id"])
        self.heights.append(image["height"])
        self.widths.append(image["width"])
        for key, strings in self._names.items():
            strings.append(image.get(key))
        for key, lists in self._lists.items():
            lists.append(image.get(key))

    def _problem(self, image: Any) -> str:
        if not isinstance(image, dict) or not isinstance(image.get("id"), int):
            return NO_ID
        if image["id"] in self._seen:
            return TWICE
        sides = image.get("height"), image.get("width")
        if not all(isinstance(side, int) and 0 < side < 1 << 20 for side in sides):
            return NO_SIZE
        if not any(isinstance(image.get(key), str) for key in self._names):
            return NO_FILE
        return ""

    def names(self, key: str) -> pa.ChunkedArray:
        """`file_name` or `coco_url` of every image, null where the json has none."""
        return self._names[key].read()

    def id_lists(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Category ids of every image: flat values and (N + 1,) starts."""
        return self._lists[key].read()

    @property
    def federated(self) -> bool:
        """Whether any image lists verified absences, the mark of an LVIS-style file."""
        return self._lists["neg_category_ids"].present


class _Strings:
    """Optional strings, moved into Arrow arrays every few thousand."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._pending: list[str | None] = []

    def append(self, value: Any) -> None:
        self._pending.append(value if isinstance(value, str) else None)
        if len(self._pending) >= _STRINGS_IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._pending, pa.string()))
        self._pending = []

    def read(self) -> pa.ChunkedArray:
        self._flush()
        return pa.chunked_array(self._chunks, pa.string())


class _IdLists:
    """Lists of category ids, flat."""

    def __init__(self) -> None:
        self.present = False
        self._values, self._lengths = array("q"), array("i")

    def append(self, ids: Any) -> None:
        self.present |= ids is not None
        sound = [i for i in ids if isinstance(i, int)] if isinstance(ids, list) else []
        self._values.extend(sound)
        self._lengths.append(len(sound))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self._values, np.int64), ragged.starts_of(np.asarray(self._lengths, np.int64))


def read_categories(entries: list[Any], path: Path) -> tuple[Category, ...]:
    """Categories by ascending id, which is the order of labels. DataError names the first broken entry."""
    categories = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int) or "name" not in entry:
            raise DataError(f"{path}: a category needs a whole-number id and a name, got {str(entry)[:80]}")
        counts = [entry.get(key) for key in ("image_count", "instance_count")]
        frequency = entry.get("frequency")
        categories.append(
            Category(
                entry["id"],
                str(entry["name"]),
                frequency if frequency in ("r", "c", "f") else "",
                *(count if isinstance(count, int) else -1 for count in counts),
            )
        )
    categories.sort(key=lambda category: category.id)
    for first, second in itertools.pairwise(categories):
        if first.id == second.id:
            raise DataError(f"{path}: category id {first.id} is given twice ('{first.name}' and '{second.name}')")
    return tuple(categories)
