"""The rules of LVIS that decide what is evaluated at all, applied before any evaluator sees the data.

LVIS is annotated federatedly (Gupta et al., 2019, section 3): on each image only the annotated and the
`neg_category_ids` categories were verified, so detections of other categories are neither right nor wrong.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cvpods_ext.evaluation.detections import DetectionTable
from cvpods_ext.evaluation.ground_truth import GroundTruth
from cvpods_ext.evaluation.masks import mask_areas

IGNORED_AREA = 1e11  # beyond every area range: an annotation of this area is ignored in all of them


def select_ground_truth(gt: GroundTruth) -> GroundTruth:
    """Annotations as the official evaluator counts them.

    It drops an area of 0 (also as evidence that the category was verified), honours `ignore` and disregards
    `iscrowd`. An ignored annotation gets an area outside all ranges, which is what ignoring means.
    """
    kept = np.flatnonzero((gt.areas > 0) & (gt.areas < np.inf))
    ignore = gt.ignore[kept]
    return replace(
        gt,
        images=gt.images[kept],
        categories=gt.categories[kept],
        boxes=gt.boxes[kept],
        areas=np.where(ignore, IGNORED_AREA, gt.areas[kept]),
        crowd=np.zeros(len(kept), dtype=bool),
        ignore=ignore,
        segmentations=None if gt.segmentations is None else [gt.segmentations[i] for i in kept],
    )


def select_detections(
    gt: GroundTruth, table: DetectionTable, task: str, max_detections: int
) -> tuple[DetectionTable, np.ndarray]:
    """Detections that the official evaluator would rank, by image and descending score, and their areas.

    In this order, since each step sees what the one before left: the `max_detections` best of each image over all
    categories (ties: file order), verified (image, category) pairs only, area above 0 (of the mask for segm).
    `gt` must have gone through `select_ground_truth`.
    """
    images = np.searchsorted(gt.image_ids, table.image_ids)
    order = np.lexsort((-table.scores.astype(np.float64), images))
    starts = np.searchsorted(images[order], np.arange(len(gt.image_ids)))
    order = order[np.arange(len(order)) - starts[images[order]] < max_detections]
    keys = images * gt.num_categories + np.searchsorted(gt.category_ids, table.category_ids)
    verified = np.union1d(gt.keys(), gt.negatives)
    order = order[np.isin(keys[order], verified)]
    kept = table.take(order)
    sides = kept.boxes[:, 2:].astype(np.float64)
    areas = sides[:, 0] * sides[:, 1] if task == "bbox" else mask_areas(kept, gt.image_sizes[images[order]])
    solid = np.flatnonzero(areas > 0)
    return kept.take(solid), areas[solid]
