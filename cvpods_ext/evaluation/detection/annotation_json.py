"""Reading an annotation json for evaluation: one table with a row per annotation, kept beside the json's cache.

The training layer's cache cannot serve here: it drops what it cannot train on (empty boxes, which still count as
missed objects or as evidence), rounds polygons to float32 and boxes to corners; evaluation must be exact to 1e-9.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvpods_ext.data.annotations.cache import cache_folder
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.masks import rasterise
from cvpods_ext.runtime.files import atomic_path, sha256_of

FORMAT = 1  # of the cached table; raise it when the columns or a check change
BOX = ("x", "y", "w", "h")
MASK = ("mask_x", "mask_y", "mask_w", "mask_h", "mask_area")


def cached_table(path: Path, masks: bool) -> tuple[pa.Table, str]:
    """The table of `path` and the sha256 of its content; parsed and rasterised only if not cached for that content.

    Rows: image, category (positions by sorted id), BOX, area, crowd, ignore, and with `masks` rle and MASK. The schema
    metadata `header` holds images, categories and the federated lists as JSON.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing. Run pods_data doctor to see where it belongs.")
    digest = sha256_of(path)
    folder = cache_folder(path)
    kinds = ("masks",) if masks else ("masks", "boxes")  # the table with masks serves boxes too
    for kind in kinds:
        cache = folder / f"{path.stem}-{digest[:16]}-evaluation-{kind}-{FORMAT}.arrow"
        if cache.is_file():
            with pa.memory_map(str(cache)) as file:
                return pa.ipc.open_file(file).read_all(), digest
    table = parse(path, masks)
    with atomic_path(cache) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table)
    return table, digest


def parse(path: Path, masks: bool) -> pa.Table:
    """Read the json; annotations of images or categories that it does not define are counted and left out."""
    content = _load(path, masks)
    images, categories = _records(content, "images", path), _records(content, "categories", path)
    annotations = _records(content, "annotations", path)
    images.sort(key=lambda image: image["id"])
    categories.sort(key=lambda category: category["id"])
    image_ids, category_ids = _ids(images, "image", path), _ids(categories, "category", path)
    for image in images:
        if "height" not in image or "width" not in image:
            raise DataError(f"{path}: image {image['id']} has no height and width. pods_data doctor lists all of them.")
    notes: dict[str, Any] = {}
    kept, columns = _columns(annotations, image_ids, category_ids, path, notes)
    if masks:
        sizes = np.array([(i["height"], i["width"]) for i in images], dtype=np.int64).reshape(-1, 2)
        where = columns["image"]
        drawn = rasterise([annotations[i][6] for i in kept], sizes[where], image_ids[where], path, notes)
        columns["rle"] = drawn.counts
        columns.update(zip(MASK, (*drawn.boxes.T, drawn.areas), strict=True))
    header = {
        "image_ids": image_ids.tolist(),
        "heights": [image["height"] for image in images],
        "widths": [image["width"] for image in images],
        "categories": [{k: c[k] for k in ("id", "name", "frequency", "image_count") if k in c} for c in categories],
        "negatives": _pairs(images, "neg_category_ids", category_ids),
        "not_exhaustive": _pairs(images, "not_exhaustive_category_ids", category_ids) or [],
        "notes": notes,
    }
    return pa.table(columns).replace_schema_metadata({"header": json.dumps(header)})


def _load(path: Path, masks: bool) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file, object_hook=_annotation_hook(masks))
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
        raise DataError(f"{path} has no list '{name}' (it has {sorted(content)}): evaluation needs an annotation file.")
    if name != "annotations" and not all(isinstance(v, dict) and isinstance(v.get("id"), int) for v in value):
        raise DataError(f"{path}: a record of '{name}' has no whole number 'id'.")
    return value


def _ids(records: list[dict[str, Any]], kind: str, path: Path) -> np.ndarray:
    """Ids of sorted records, all different."""
    ids = np.array([record["id"] for record in records], dtype=np.int64)
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise DataError(f"{path}: {kind} id {ids[twice[0]]} occurs twice. Ids must be unique.")
    return ids


def _columns(
    annotations: list[Any], image_ids: np.ndarray, category_ids: np.ndarray, path: Path, notes: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Positions of usable annotations and their columns."""
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
        "image": np.searchsorted(image_ids, ids[known, 0]),
        "category": np.searchsorted(category_ids, ids[known, 1]),
        **dict(zip(BOX, boxes.T, strict=True)),
        "area": areas,
        "crowd": np.array([bool(a[4]) for a in kept], dtype=bool),
        "ignore": np.array([bool(a[5]) for a in kept], dtype=bool),
    }


def _pairs(images: list[dict[str, Any]], name: str, category_ids: np.ndarray) -> list[int] | None:
    """Sorted keys image * K + category of a list of category ids per image; None if no image has the list."""
    if not any(name in image for image in images):
        return None
    lists: list[Sequence[int]] = [image.get(name, ()) for image in images]
    flat = np.array([i for ids in lists for i in ids], dtype=np.int64)
    owner = np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])
    known = np.isin(flat, category_ids)  # the file itself does not define the others
    return np.unique(owner[known] * len(category_ids) + np.searchsorted(category_ids, flat[known])).tolist()
