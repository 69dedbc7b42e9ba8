"""The annotation file as the evaluators need it: columns instead of dicts, LVIS's federated lists as sorted keys.

Shapes: I = images, K = categories, both by sorted id; A = annotations in file order. A key is image * K + category.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.masks import Segmentation, usable_masks
from cvpods_ext.evaluation.protocol import GROUPS


@dataclass(frozen=True)
class GroundTruth:
    """Annotations of a validation split.

    image_ids (I,), image_sizes (I, 2) height, width; category_ids (K,), frequency (K,) positions in GROUPS;
    per annotation: images, categories (A,) positions, boxes (A, 4) float64 XYWH, areas (A,), crowd and ignore (A,)
    bool, segmentations A json values or None if not read. `negatives` and `not_exhaustive` are sorted keys of
    verified absent and of incompletely annotated (image, category) pairs. `notes` says what had to be derived.
    """

    path: Path
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
    segmentations: list[Segmentation] | None
    negatives: np.ndarray
    not_exhaustive: np.ndarray
    notes: dict[str, Any]

    @property
    def num_categories(self) -> int:
        """Categories, annotated or not."""
        return len(self.category_ids)

    def keys(self) -> np.ndarray:
        """(A,) image * K + category of every annotation."""
        return self.images * self.num_categories + self.categories


def load(path: Path, masks: bool, train_image_counts: Sequence[int] | None = None) -> GroundTruth:
    """Read a COCO or LVIS json; `masks=False` drops the segmentations while parsing.

    It is federated (LVIS) if a category has a frequency or an image has `neg_category_ids`. Absent frequencies are
    derived from `train_image_counts` (K,), else from the categories' `image_count`, else from this file's images.
    """
    path = Path(path)
    content = _parse(path, masks)
    images, categories, annotations = (
        _records(content, name, path) for name in ("images", "categories", "annotations")
    )
    image_ids = _unique_ids(images, "image", path)
    category_ids = _unique_ids(categories, "category", path)
    images.sort(key=lambda image: image["id"])
    categories.sort(key=lambda category: category["id"])
    federated = any("frequency" in c for c in categories) or any("neg_category_ids" in i for i in images)
    notes: dict[str, Any] = {}
    known, columns = _columns(annotations, image_ids, category_ids, path, notes)
    _require_sizes(images, path)
    sizes = np.array([(i["height"], i["width"]) for i in images], dtype=np.int64).reshape(-1, 2)
    segmentations = [annotations[i][6] for i in known] if masks else None
    if segmentations is not None:
        segmentations = usable_masks(segmentations, sizes[columns["images"]], image_ids[columns["images"]], path, notes)
    counts = _image_counts(columns["images"], columns["categories"], len(category_ids))
    return GroundTruth(
        path=path,
        federated=federated,
        image_ids=image_ids,
        image_sizes=sizes,
        category_ids=category_ids,
        category_names=[str(category.get("name", category["id"])) for category in categories],
        frequency=_frequency(categories, train_image_counts, counts, path, notes),
        segmentations=segmentations,
        negatives=_negatives(images, category_ids, federated, notes),
        not_exhaustive=_pair_keys([i.get("not_exhaustive_category_ids", ()) for i in images], category_ids),
        notes=notes,
        **columns,
    )


def _parse(path: Path, masks: bool) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file, object_hook=_annotation_hook(masks))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing. Run pods_data doctor to see where it belongs.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); it may be truncated. Download it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not annotations. Is it a results file?")
    return content


def _annotation_hook(masks: bool) -> Callable[[dict[str, Any]], Any]:
    """Turn each annotation into a tuple while the file is parsed: the dicts of LVIS val alone take a gigabyte."""

    def slim(item: dict[str, Any]) -> Any:
        if "image_id" not in item or "category_id" not in item:
            return item
        flags = item.get("iscrowd", 0), item.get("ignore", 0)
        segmentation = _compact(item.get("segmentation")) if masks else None
        return item["image_id"], item["category_id"], item.get("bbox"), item.get("area"), *flags, segmentation

    return slim


def _compact(segmentation: Any) -> Any:
    """Polygons as arrays: an eighth of a list of Python floats."""
    if isinstance(segmentation, list) and all(isinstance(ring, list) for ring in segmentation):
        return [np.asarray(ring, dtype=np.float64) for ring in segmentation]
    return segmentation


def _records(content: dict[str, Any], name: str, path: Path) -> list[Any]:
    value = content.get(name)
    if not isinstance(value, list):
        raise DataError(
            f"{path} has no list '{name}' (it has {sorted(content)}). Evaluation needs a file with annotations."
        )
    return value


def _unique_ids(records: list[dict[str, Any]], kind: str, path: Path) -> np.ndarray:
    if not all(isinstance(record, dict) and isinstance(record.get("id"), int) for record in records):
        raise DataError(f"{path}: a record of the list of {kind} records has no whole number 'id'.")
    ids, counts = np.unique(np.array([record["id"] for record in records], dtype=np.int64), return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{path}: {kind} id {ids[counts > 1][0]} occurs twice. Ids must be unique.")
    return ids


def _require_sizes(images: list[dict[str, Any]], path: Path) -> None:
    for image in images:
        if "height" not in image or "width" not in image:
            raise DataError(f"{path}: image {image['id']} has no height and width. pods_data doctor lists all of them.")


def _columns(
    annotations: list[Any], image_ids: np.ndarray, category_ids: np.ndarray, path: Path, notes: dict[str, Any]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Positions of usable annotations and their columns; those of unknown images or categories are only counted."""
    if not all(isinstance(a, tuple) for a in annotations):
        raise DataError(f"{path}: an annotation lacks image_id or category_id. pods_data doctor lists all of them.")
    ids = np.array([a[:2] for a in annotations], dtype=np.int64).reshape(-1, 2)
    known = np.flatnonzero(np.isin(ids[:, 0], image_ids) & np.isin(ids[:, 1], category_ids))
    if len(known) < len(annotations):
        notes["annotations_of_unknown_images_or_categories"] = len(annotations) - len(known)
    kept = [annotations[i] for i in known]
    boxes = np.array([(np.nan,) * 4 if a[2] is None else a[2] for a in kept], dtype=np.float64).reshape(-1, 4)
    areas = np.array([np.nan if a[3] is None else a[3] for a in kept], dtype=np.float64)
    absent = np.isnan(areas)
    if absent.any():
        areas = np.where(absent, boxes[:, 2] * boxes[:, 3], areas)
        notes["areas_derived_from_boxes"] = int(absent.sum())
    return known, {
        "images": np.searchsorted(image_ids, ids[known, 0]),
        "categories": np.searchsorted(category_ids, ids[known, 1]),
        "boxes": boxes,
        "areas": areas,
        "crowd": np.array([bool(a[4]) for a in kept], dtype=bool),
        "ignore": np.array([bool(a[5]) for a in kept], dtype=bool),
    }


def _image_counts(images: np.ndarray, categories: np.ndarray, num_categories: int) -> np.ndarray:
    """(K,) in how many images each category is annotated."""
    pairs = np.unique(images * num_categories + categories)
    return np.bincount(pairs % num_categories, minlength=num_categories)


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


def _pair_keys(ids_per_image: list[Sequence[int]], category_ids: np.ndarray) -> np.ndarray:
    """Sorted unique keys of (image, category) lists; category ids that the file does not define are left out."""
    lengths = [len(ids) for ids in ids_per_image]
    flat = np.array([i for ids in ids_per_image for i in ids], dtype=np.int64)
    images = np.repeat(np.arange(len(ids_per_image)), lengths)
    known = np.isin(flat, category_ids)
    return np.unique(images[known] * len(category_ids) + np.searchsorted(category_ids, flat[known]))


def _negatives(
    images: list[dict[str, Any]], category_ids: np.ndarray, federated: bool, notes: dict[str, Any]
) -> np.ndarray:
    if federated and not any("neg_category_ids" in image for image in images):
        notes["negatives"] = "no image has neg_category_ids: every category counts as verified on every image"
        return np.arange(len(images) * len(category_ids))
    return _pair_keys([image.get("neg_category_ids", ()) for image in images], category_ids)
