"""The annotation file as the evaluators need it: columns instead of dicts, LVIS's federated lists as sorted keys.

Shapes: I = images, K = categories, both by sorted id; A = annotations, those of an image in file order. A key is
image * K + category.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations import cache
from cvpods_ext.data.annotations.annotations import Annotations, EveryAnnotation, read_cached
from cvpods_ext.data.annotations.policy import (
    BOX_WORDS,
    EVALUATED_BOXES,
    EVALUATED_MASKS,
    MASK_WORDS,
    OF_NO_IMAGE,
    REFERENCE_WORDS,
)
from cvpods_ext.data.category_tables import Category
from cvpods_ext.data.paths import DatasetPaths
from cvpods_ext.data.statistics import LVIS_LIMITS, FrequencyGroups, groups_by_count, in_words
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection import annotation_masks
from cvpods_ext.evaluation.detection.protocol import GROUPS
from cvpods_ext.runtime.words import counted


@dataclass(frozen=True)
class GroundTruth:
    """Annotations of a validation split.

    image_ids (I,), image_sizes (I, 2) height, width; category_ids (K,), frequency (K,) positions in GROUPS;
    per annotation: images, categories (A,) positions, boxes (A, 4) float64 XYWH, areas (A,), crowd and ignore (A,)
    bool, box_usable and mask_usable (A,) bool by the rules of `data.annotations.policy`; if masks were read rles (A,)
    compressed COCO RLE, mask_boxes (A, 4) tight XYWH and mask_areas (A,) pixels.
    `negatives` and `not_exhaustive` are sorted keys of the verified absent and of the incompletely annotated pairs.
    `notes` says what had to be derived or could not be evaluated; `sha256` is the json's.
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
    box_usable: np.ndarray
    mask_usable: np.ndarray
    rles: pa.Array | None
    mask_boxes: np.ndarray | None
    mask_areas: np.ndarray | None
    negatives: np.ndarray
    not_exhaustive: np.ndarray
    notes: dict[str, Any]

    @property
    def content(self) -> str:
        """What tells these annotations from others: the json and the rules by which it was read."""
        return f"{self.sha256}-{cache.FORMAT}"

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
        chosen = ("images", "categories", "boxes", "areas", "crowd", "ignore", "box_usable", "mask_usable")
        chosen += ("mask_boxes", "mask_areas")
        columns = {name: getattr(self, name) for name in chosen}
        columns = {name: None if column is None else column[positions] for name, column in columns.items()}
        return replace(self, **columns, rles=None if self.rles is None else self.rles.take(pa.array(positions)))

    def rle_dicts(self, positions: np.ndarray) -> list[dict[str, Any]]:
        """Masks as COCO dicts."""
        assert self.rles is not None, "ground truth was read without masks"
        counts = self.rles.take(pa.array(positions)).to_pylist()
        sizes = self.image_sizes[self.images[positions]].tolist()
        return [{"size": size, "counts": count} for size, count in zip(sizes, counts, strict=True)]


def load(path: Path, masks: bool, frequency: FrequencyGroups | None = None) -> GroundTruth:
    """Read a COCO or LVIS json, from its cache if there is one; `masks=False` leaves the masks out.

    It is federated (LVIS) if a category has a frequency or an image has `neg_category_ids`. Absent frequencies are
    taken from `frequency`, those of the training set, else derived from the categories' `image_count`, else from this
    file's images.
    DataError if the file cannot be read, or has annotations but no mask although `masks` are wanted.
    """
    path = Path(path)
    found = read_cached(DatasetPaths(path.name.removesuffix(".json"), path, path.parent, "own", path.parent))
    every = found.every()
    order = np.argsort(found.image_ids, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    notes = _notes(found, every, masks)
    num_pairs = len(found) * found.num_classes
    federated = found.facts["federated"] or any(category.frequency for category in found.categories)
    negatives, not_exhaustive = (_keys(found, place, name) for name in ("negative_labels", "not_exhaustive_labels"))
    if federated and not found.facts["federated"]:
        notes["negatives"] = "no image has neg_category_ids: every category counts as verified on every image"
        negatives = np.arange(num_pairs)
    table = annotation_masks.drawn(found) if masks else None
    measured = [] if table is None else [table.column(name).to_numpy() for name in annotation_masks.COLUMNS]
    sound = every.reference == 0
    own_counts = np.bincount(
        np.unique((every.image * found.num_classes + every.label)[sound]) % found.num_classes,
        minlength=found.num_classes,
    )
    gt = GroundTruth(
        path=path,
        sha256=found.facts["sha256"],
        federated=federated,
        image_ids=found.image_ids[order],
        image_sizes=np.stack((found.heights, found.widths), axis=1)[order].astype(np.int64),
        category_ids=found.category_ids,
        category_names=[category.name for category in found.categories],
        frequency=_frequency(found.categories, frequency, own_counts, path, notes),
        images=place[every.image],
        categories=every.label.astype(np.int64),
        boxes=every.boxes,
        areas=every.areas,
        crowd=every.crowd,
        ignore=every.ignore,
        box_usable=np.isin(every.box_problem, EVALUATED_BOXES),
        mask_usable=np.isin(every.mask_problem, EVALUATED_MASKS),
        rles=None if table is None else table.column("rle").combine_chunks(),
        mask_boxes=np.stack(measured[:4], axis=1) if measured else None,
        mask_areas=measured[4] if measured else None,
        negatives=negatives,
        not_exhaustive=not_exhaustive,
        notes=notes,
    )
    return gt if sound.all() else _exempt(gt, ~sound)


def _exempt(gt: GroundTruth, doubtful: np.ndarray) -> GroundTruth:
    """Objects of which a flag or the category is unknown, where `doubtful` (A,) bool, count neither way.

    For that COCO has crowds and LVIS the flag `ignore`. An unknown category (-1) may be any: its object then lies in
    every category whose detections are judged on its image.
    """
    gt = replace(gt, crowd=gt.crowd | doubtful, ignore=gt.ignore | doubtful)
    known, unknown = np.flatnonzero(gt.categories >= 0), np.flatnonzero(gt.categories < 0)
    if not len(unknown):
        return gt
    size = gt.num_categories
    if gt.federated:
        judged = gt.take(known).verified
        first, last = (np.searchsorted(judged, (gt.images[unknown] + k) * size) for k in (0, 1))
        chosen = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
        copies, categories = np.repeat(unknown, last - first), judged[chosen] % size
    else:
        copies, categories = np.repeat(unknown, size), np.tile(np.arange(size), len(unknown))
    return replace(
        gt.take(np.concatenate((known, copies))), categories=np.concatenate((gt.categories[known], categories))
    )


def _keys(found: Annotations, place: np.ndarray, name: str) -> np.ndarray:
    """Sorted keys of the labels that a list names on each image."""
    labels, owner = found.label_lists(name)
    return np.unique(place[owner] * found.num_classes + labels)


def _notes(found: Annotations, every: EveryAnnotation, masks: bool) -> dict[str, Any]:
    """What the file's annotations lost or had to be given, by the words of `data.annotations.policy`."""
    unusable = {"boxes_not_evaluated": _count(every.box_problem, BOX_WORDS, EVALUATED_BOXES)}
    if masks:
        unusable["masks_not_evaluated"] = _count(every.mask_problem, MASK_WORDS, EVALUATED_MASKS)
    facts = found.facts
    of_no_image = {REFERENCE_WORDS[reason] for reason in OF_NO_IMAGE}
    notes = {
        "images_left_out": facts["images_dropped"],
        "annotations_left_out": {word: n for word, n in facts["unrelated"].items() if word in of_no_image},
        "annotations_not_evaluated": {word: n for word, n in facts["unrelated"].items() if word not in of_no_image},
        **unusable,
        "read_otherwise": facts["noted"],
    }
    return {name: counts for name, counts in notes.items() if counts}


def _count(problems: np.ndarray, words: Sequence[str], evaluated: Sequence[int]) -> dict[str, int]:
    counts = np.bincount(problems, minlength=len(words)).tolist()
    return {word: n for k, (word, n) in enumerate(zip(words, counts, strict=True)) if n and k not in evaluated}


def tell(gt: GroundTruth) -> None:
    """Warn about everything that the evaluation leaves out, and where there is nothing to evaluate by."""
    if not len(gt.images):
        logging.getLogger(__name__).warning(
            "%s has no annotations, so every metric is n/a; write the detections for an evaluation server with "
            "--export FILE",
            gt.path.name,
        )
    meaning = {
        "images_left_out": ("image", "left out"),
        "annotations_left_out": ("annotation", "left out"),
        "annotations_not_evaluated": ("object", "not held against the detections"),
        "boxes_not_evaluated": ("object", "not held against the boxes"),
        "masks_not_evaluated": ("object", "not held against the masks"),
    }
    for name, (noun, fate) in meaning.items():
        for word, count in gt.notes.get(name, {}).items():
            logging.getLogger(__name__).warning("%s: %s %s: %s", gt.path.name, counted(count, noun), fate, word)


def _frequency(
    categories: Sequence[Category],
    given: FrequencyGroups | None,
    own_counts: np.ndarray,
    path: Path,
    notes: dict[str, Any],
) -> np.ndarray:
    """(K,) positions in GROUPS: as the file says, else as given, else by image counts and the limits of LVIS."""
    if all(category.frequency for category in categories):
        return np.array([GROUPS.index(category.frequency) for category in categories])
    if given is not None:
        if len(given.groups) != len(categories):
            raise DataError(
                f"{path} has {len(categories)} categories, the training set {len(given.groups)}; they must be the same"
            )
        notes["frequency"] = given.origin
        return np.array([GROUPS.index(group) for group in given.groups])
    if all(category.image_count >= 0 for category in categories):
        counts, origin = np.array([category.image_count for category in categories]), "image_count of the categories"
    else:
        counts, origin = own_counts, f"image counts of {path.name} itself"
    notes["frequency"] = f"derived from {origin}: {in_words(LVIS_LIMITS)}"
    return np.array([GROUPS.index(group) for group in groups_by_count(counts)])
