"""First pass over the images and categories of an annotation json: columns, and what is wrong with them."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations import policy, ragged
from cvpods_ext.data.annotations.file_names import leaves_folder
from cvpods_ext.data.category_tables import Category
from cvpods_ext.errors import DataError

_STRINGS_IN_MEMORY = 1 << 14

NO_ID = "image without a whole-number id"
NO_SIZE = f"image whose height and width are not two whole numbers of together at most {policy.MOST_PIXELS:,} pixels"
TWICE = "image listed twice, with the same file and size"


class ImageColumns:
    """Columns of all usable images in json order; the others are counted in `dropped`.

    `nameless` images have no file name that could be looked up: they can be evaluated, not read. A second picture under
    one id is a DataError, since nobody can tell whose the annotations are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ids, self.heights, self.widths = array("q"), array("i"), array("i")
        self.dropped: Counter[str] = Counter()
        self.nameless = 0
        self.outside = ""  # the first file name that leads out of the image folder
        self._seen: dict[int, int] = {}
        self._names: dict[str, _Strings] = {"file_name": _Strings(), "coco_url": _Strings()}
        self._lists = {"neg_category_ids": _IdLists(), "not_exhaustive_category_ids": _IdLists()}

    def add(self, image: Any) -> None:
        """Append one image of the json, or count why not."""
        number = policy.whole_number(image.get("id")) if isinstance(image, dict) else None
        if number is None:
            self.dropped[NO_ID] += 1
            return
        height, width = (policy.whole_number(image.get(side)) or 0 for side in ("height", "width"))
        names = {key: policy.file_name(image.get(key)) for key in self._names}
        looks = hash((height, width, *names.values()))  # of each image, since holding all of it takes far more memory
        if number in self._seen:
            self._same_picture(number, looks, image)
            return
        self._seen[number] = looks
        if not 0 < min(height, width) <= max(height, width) <= policy.LONGEST_SIDE or (
            height * width > policy.MOST_PIXELS
        ):
            self.dropped[NO_SIZE] += 1
            return
        self.ids.append(number)
        self.heights.append(height)
        self.widths.append(width)
        self.nameless += not any(names.values())
        if not self.outside and names["file_name"] and leaves_folder(names["file_name"]):
            self.outside = names["file_name"]
        for key, strings in self._names.items():
            strings.append(names[key])
        for key, lists in self._lists.items():
            lists.append(image.get(key))

    def _same_picture(self, number: int, looks: int, image: dict[str, Any]) -> None:
        if self._seen[number] != looks:
            raise DataError(
                f"{self._path}: image id {number} stands for two pictures, the second one being "
                f"{str(image.get('file_name', image.get('coco_url')))[:200]!r}. Nobody can tell which of them its "
                "annotations belong to: give every image an id of its own, in annotations too."
            )
        self.dropped[TWICE] += 1

    def names(self, key: str) -> pa.ChunkedArray:
        """`file_name` or `coco_url` of every image, null where the json has none."""
        return self._names[key].read()

    def id_lists(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Category ids of every image: flat values and (N + 1,) starts."""
        return self._lists[key].read()

    @property
    def broken_lists(self) -> dict[str, str]:
        """Which list of category ids is not one in some image, and the first such value."""
        return {key: ids.broken for key, ids in self._lists.items() if ids.broken}

    @property
    def federated(self) -> bool:
        """Whether any image lists verified absences, the mark of an LVIS-style file."""
        return self._lists["neg_category_ids"].present


class _Strings:
    """Optional strings, moved into Arrow arrays every few thousand."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._pending: list[str | None] = []

    def append(self, value: str | None) -> None:
        self._pending.append(value)
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
        self.broken = ""  # the first value that is no list of ids
        self._values, self._lengths = array("q"), array("i")

    def append(self, ids: Any) -> None:
        self.present |= ids is not None
        numbers = [policy.whole_number(one) for one in ids] if isinstance(ids, list) else []
        sound = [number for number in numbers if number is not None]
        if len(sound) < len(numbers) or not isinstance(ids, list | None):
            self.broken = self.broken or ascii(ids)[:80]
        self._values.extend(sound)
        self._lengths.append(len(sound))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self._values, np.int64), ragged.starts_of(np.asarray(self._lengths, np.int64))


def read_categories(entries: list[Any], path: Path) -> tuple[Category, ...]:
    """Categories by ascending id, which is the order of labels. DataError names the first broken entry."""
    categories = []
    for entry in entries:
        number = policy.whole_number(entry.get("id")) if isinstance(entry, dict) else None
        name = policy.text(entry.get("name")) if isinstance(entry, dict) else None
        if number is None or not name:
            raise DataError(f"{path}: a category needs a whole-number id and a name, got {ascii(entry)[:80]}")
        counts = [policy.whole_number(entry.get(key)) for key in ("image_count", "instance_count")]
        frequency = entry.get("frequency")
        categories.append(
            Category(
                number,
                name,
                frequency if frequency in ("r", "c", "f") else "",
                *(-1 if count is None or count < 0 else count for count in counts),
            )
        )
    categories.sort(key=lambda category: category.id)
    for first, second in itertools.pairwise(categories):
        if first.id == second.id:
            raise DataError(f"{path}: category id {first.id} is given twice ('{first.name}' and '{second.name}')")
    return tuple(categories)
