"""Which detections and annotations are evaluated at all, decided before any evaluator sees them.

LVIS is annotated federatedly (Gupta et al., 2019, section 3): on each image only the annotated and the
`neg_category_ids` categories were verified, so detections of other categories are neither right nor wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cvpods_ext.config.detection_protocol import COCO, LVIS
from cvpods_ext.evaluation.detection import annotation_masks
from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth

IGNORED_AREA = 1e11  # beyond every area range: an annotation of this area is ignored in all of them


@dataclass(frozen=True)
class Limit:
    """How many of the best detections count: of each image over all categories (LVIS), of each category over the whole
    split (AP_fixed, Dave et al. 2021), or of each category of an image (COCO). None is unlimited.
    """

    per_image: int | None = None
    per_category: int | None = None
    per_cell: int | None = None

    def __str__(self) -> str:
        given = ((name, value) for name, value in vars(self).items() if value is not None)
        return "-".join(f"{value}_{name}" for name, value in given) or "unlimited"


LVIS_LIMIT = Limit(per_image=LVIS.per_image)
FIXED_LIMIT = Limit(per_category=10_000)
COCO_LIMIT = Limit(per_cell=COCO.per_category)


def limit_of(federated: bool, max_detections: int) -> Limit:
    """The official limit: under LVIS's rules `max_detections` per image, COCO fixes its own."""
    return Limit(per_image=max_detections) if federated else COCO_LIMIT


def select_annotations(gt: GroundTruth, task: str) -> GroundTruth:
    """Annotations as the official evaluator of the file's kind counts them.

    COCO's counts all, ignores crowds and disregards `ignore`. LVIS's drops an area of 0 (also as evidence that the
    category was verified), honours `ignore` and disregards `iscrowd`; an ignored annotation gets an area outside all
    ranges here, which is what ignoring means.
    """
    gt = exempt_unusable(gt, task)
    if not gt.federated:
        return gt
    kept = gt.take(np.flatnonzero((gt.areas > 0) & (gt.areas < np.inf)))
    return replace(kept, areas=np.where(kept.ignore, IGNORED_AREA, kept.areas), crowd=np.zeros_like(kept.crowd))


def exempt_unusable(gt: GroundTruth, task: str) -> GroundTruth:
    """Annotations without a usable box ("bbox") or mask (other tasks) no longer speak against a detector.

    The official protocols know how to say that a category is not fully annotated on an image: LVIS lists it among the
    not exhaustive ones, COCO has a crowd, here one that covers the whole image and more.
    """
    unusable = ~(gt.box_usable if task == "bbox" else gt.mask_usable)
    if not unusable.any():
        return gt
    if gt.federated:
        not_exhaustive = np.union1d(gt.not_exhaustive, gt.keys[unusable])
        return replace(gt.take(np.flatnonzero(~unusable)), not_exhaustive=not_exhaustive)
    sides = gt.image_sizes[gt.images][:, ::-1].astype(np.float64)
    everywhere = np.concatenate((-sides, 3 * sides), axis=1)
    crowd, where = gt.crowd | unusable, unusable[:, None]
    if gt.rles is None:
        return replace(gt, crowd=crowd, boxes=np.where(where, everywhere, gt.boxes))
    assert gt.mask_boxes is not None, "masks were read"
    assert gt.mask_areas is not None, "masks were read"
    rles = gt.rles.to_pylist()
    for row in np.flatnonzero(unusable).tolist():
        rles[row] = annotation_masks.full(*gt.image_sizes[gt.images[row]].tolist())
    whole = np.concatenate((np.zeros_like(sides), sides), axis=1)
    return replace(
        gt,
        crowd=crowd,
        boxes=np.where(where, everywhere, gt.boxes),
        rles=pa.array(rles, pa.binary()),
        mask_boxes=np.where(where, whole, gt.mask_boxes),
        mask_areas=np.where(unusable, sides.prod(axis=1), gt.mask_areas),
    )


def select_detections(gt: GroundTruth, table: DetectionTable, limit: Limit) -> np.ndarray:
    """Rows that are evaluated, by image and falling score (ties: file order).

    In this order, since each step sees what the one before left: the best per image over all categories, then those
    of verified pairs, then the best per cell. `limit.per_category` needs all shards: see `best_per_category`.
    """
    images = np.searchsorted(gt.image_ids, table.image_ids)
    rows = np.arange(len(images))
    step = np.diff(images)
    if (step < 0).any() or ((step == 0) & (np.diff(table.scores) > 0)).any():  # else sorted, as models write them
        rows = np.lexsort((-table.scores, images))
    if limit.per_image is not None:
        rows = rows[_place_in_run(images[rows]) < limit.per_image]
    if gt.federated:
        rows = rows[_contains(gt.verified, gt.cells(table.image_ids[rows], table.category_ids[rows]))]
    if limit.per_cell is not None:
        keys = gt.cells(table.image_ids[rows], table.category_ids[rows])
        order = np.argsort(keys, kind="stable")
        rows = rows[np.sort(order[_place_in_run(keys[order]) < limit.per_cell])]
    return rows


def best_per_category(categories: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """(N,), (N,) of all shards -> (N,) bool: among the `limit` best of its category (ties: file order)."""
    order = np.lexsort((-scores, categories))
    kept = np.zeros(len(order), dtype=bool)
    kept[order[_place_in_run(categories[order]) < limit]] = True
    return kept


def _place_in_run(values: np.ndarray) -> np.ndarray:
    """(N,) sorted values -> (N,) how many equal values come before each."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def _contains(ordered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,) bool: which of `wanted` are in the sorted array."""
    if not len(ordered):
        return np.zeros(len(wanted), dtype=bool)
    return ordered[np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)] == wanted
