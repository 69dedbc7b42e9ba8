"""Several annotation files trained on as one: joined by the names of their categories.

Shapes: N = images of all files, K = annotations kept of all files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.data.annotations.annotations import AnnotationIndex, Annotations, Instances
from cvpods_ext.data.category_tables import Category
from cvpods_ext.errors import DataError

_COUNTS = ("images_dropped", "dropped", "dropped_of_boxes", "unrelated", "noted")


class JoinedAnnotations(Annotations):
    """Images and annotations of several files one after the other; each file keeps its own image folder.

    Labels are those of the categories of all files by ascending id; a name that several files have is one category,
    with the id of the first. Image ids stay where they are distinct; a file whose ids occur in an earlier one gets new
    ones.
    `every`, `polygons` and `rle`, which evaluation asks for, are those of the single files.
    """

    def __init__(self, parts: Sequence[Annotations]) -> None:
        first = parts[0]
        name = "+".join(part.paths.name for part in parts)
        super().__init__(first.arrow, replace(first.paths, name=name), first.masks)
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._joined, self._labels = _join_categories(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedAnnotations, (self._parts,)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Of all files together; `sha256` is that of their digests."""
        all_facts = [part.facts for part in self._parts]
        counts = {key: dict(sum((Counter(facts[key]) for facts in all_facts), Counter())) for key in _COUNTS}
        sums = ("annotations", "images_nameless", "disagree", "corners", "crowds")
        return {
            "json": "+".join(facts["json"] for facts in all_facts),
            "sha256": hashlib.sha256("".join(facts["sha256"] for facts in all_facts).encode()).hexdigest(),
            "federated": all(facts["federated"] for facts in all_facts),
            "has_masks": any(facts["has_masks"] for facts in all_facts),
            **counts,
            **{key: sum(facts[key] for facts in all_facts) for key in sums},
        }

    @property
    def dropped_list(self) -> Path:
        """CSV of the first file that had to drop annotations."""
        return next((part.dropped_list for part in self._parts if part.dropped), self._parts[0].dropped_list)

    @property
    def categories(self) -> tuple[Category, ...]:
        """In label order, which is the order of ascending ids; counts that a file states are not those of all files."""
        return self._joined

    @cached_property
    def image_ids(self) -> np.ndarray:
        """(N,) int64, all different."""
        ids, taken = [], np.zeros(0, np.int64)
        for part in self._parts:
            own = part.image_ids
            if np.isin(own, taken).any():
                own = taken.max() + 1 + np.arange(len(own))
            ids.append(own)
            taken = np.concatenate((taken, own))
        return taken

    def _image_column(self, name: str) -> np.ndarray:
        return np.concatenate([part._image_column(name) for part in self._parts])

    @cached_property
    def index(self) -> AnnotationIndex:
        """Labels of all annotations; 13 bytes an annotation, built when first asked for."""
        indices = [part.index for part in self._parts]
        return AnnotationIndex(
            image=np.concatenate([i.image + start for i, start in zip(indices, self._starts, strict=False)]),
            label=np.concatenate([labels[i.label] for i, labels in zip(indices, self._labels, strict=True)]),
            crowd=np.concatenate([i.crowd for i in indices]),
        )

    def boxes(self) -> np.ndarray:
        """(K, 4) float64 XYXY pixels of all annotations, in the order of `index`."""
        return np.concatenate([part.boxes() for part in self._parts])

    def _part(self, position: int) -> tuple[int, int]:
        """Which file an image is of, and its position there."""
        if not 0 <= position < len(self):
            raise IndexError(f"image {position} of {len(self)}")
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        return number, position - int(self._starts[number])

    def image_path(self, position: int) -> Path:
        """Where the image file should lie, in the image folder of its own file."""
        number, own = self._part(position)
        return self._parts[number].image_path(own)

    def negative_labels(self, position: int) -> np.ndarray:
        """Labels verified absent from the image, int64."""
        number, own = self._part(position)
        return self._labels[number][self._parts[number].negative_labels(own)].astype(np.int64)

    def not_exhaustive_labels(self, position: int) -> np.ndarray:
        """Labels of which not every instance is annotated, int64."""
        number, own = self._part(position)
        return self._labels[number][self._parts[number].not_exhaustive_labels(own)].astype(np.int64)

    def instances(self, position: int) -> Instances:
        """The usable annotations of one image."""
        number, own = self._part(position)
        found = self._parts[number].instances(own)
        return replace(found, labels=self._labels[number][found.labels].astype(np.int64))


def _join_categories(parts: Sequence[Annotations]) -> tuple[tuple[Category, ...], list[np.ndarray]]:
    """All categories by ascending id, and for each file the new label of each of its labels (int32)."""
    by_name: dict[str, Category] = {}
    names: dict[int, str] = {}
    for part in parts:
        if len({category.name for category in part.categories}) < part.num_classes:
            raise DataError(f"{part.paths.annotations}: two categories have one name, so it cannot be joined by name")
        for category in part.categories:
            if category.name in by_name:
                continue
            if category.id in names:
                raise DataError(
                    f"{part.paths.annotations}: category id {category.id} is {category.name!r}, but in an earlier "
                    f"training file {names[category.id]!r}. A name that the earlier files do not have needs an id that "
                    "they do not have."
                )
            by_name[category.name], names[category.id] = category, category.name
    joined = tuple(
        replace(category, image_count=-1, instance_count=-1)
        for category in sorted(by_name.values(), key=lambda category: category.id)
    )
    label_of = {category.name: label for label, category in enumerate(joined)}
    return joined, [np.array([label_of[each.name] for each in part.categories], np.int32) for part in parts]
