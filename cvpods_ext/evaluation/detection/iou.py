"""Which detections overlap which annotations of their own category and image, and by how much.

Shapes: N = detections, A = annotations, P = pairs whose overlap reaches the lowest threshold (few).
A cell is one (image, category) pair; only what shares a cell can match.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvpods_ext.evaluation.detection.boundary_iou import boundaries
from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.masks import mask_areas, mask_boxes, require_masks, rle_tools


@dataclass(frozen=True)
class Shapes:
    """What overlaps are computed from: areas (N,) float64, and boxes (N, 4) float64 XYWH or N masks as RLE dicts, these
    compared as a whole or also `by_boundary`.
    """

    areas: np.ndarray
    boxes: np.ndarray | None = None
    rles: list[dict[str, Any]] | None = None
    by_boundary: bool = False


@dataclass(frozen=True)
class Overlaps:
    """P overlapping pairs: positions `detections` (ascending) and `annotations`, and their `ious`.

    For a crowd the overlap is the part of the detection that it covers.
    """

    detections: np.ndarray
    annotations: np.ndarray
    ious: np.ndarray


def detection_shapes(gt: GroundTruth, table: DetectionTable, task: str) -> Shapes:
    """Boxes as they are, or masks measured and checked against their images."""
    if task == "bbox":
        boxes = table.boxes.astype(np.float64)
        return Shapes(boxes[:, 2] * boxes[:, 3], boxes=boxes)
    require_masks(table)
    rles = table.rles() if len(table) else []
    sizes = gt.image_sizes[np.searchsorted(gt.image_ids, table.image_ids)]
    return Shapes(mask_areas(table, rles, sizes), rles=rles, by_boundary=task == "boundary")


def overlapping_pairs(gt: GroundTruth, keys: np.ndarray, found: Shapes, lowest: float) -> Overlaps:
    """All pairs in the same cell with an IoU of at least `lowest`; `keys` (N,) are the detections' cells, ascending."""
    first, last = gt.rows_of_cells(keys)
    counts = last - first
    detections = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(len(detections)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = first[detections] + within
    if found.boxes is not None:
        ious = _box_ious(gt, rows, detections, found.boxes, found.areas)
    else:
        ious = _mask_ious(gt, rows, detections, keys, found, lowest)
    close = np.flatnonzero(ious >= lowest)
    return Overlaps(detections[close], gt.by_cell[rows[close]], ious[close])


def _intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P, 4), (P, 4) XYWH -> (P,) common area, in the order of operations of COCO's C code, so equal to the bit."""
    right = np.minimum(first[:, 2] + first[:, 0], second[:, 2] + second[:, 0])
    bottom = np.minimum(first[:, 3] + first[:, 1], second[:, 3] + second[:, 1])
    width = right - np.maximum(first[:, 0], second[:, 0])
    height = bottom - np.maximum(first[:, 1], second[:, 1])
    return np.where((width > 0) & (height > 0), width * height, 0.0)


def _ious(common: np.ndarray, areas: np.ndarray, gt_areas: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    union = np.where(crowd, areas, areas + gt_areas - common)
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _box_ious(
    gt: GroundTruth, rows: np.ndarray, detections: np.ndarray, found_boxes: np.ndarray, areas: np.ndarray
) -> np.ndarray:
    annotations = gt.by_cell[rows]
    boxes = gt.boxes[annotations]
    common = _intersections(found_boxes[detections], boxes)
    return _ious(common, areas[detections], boxes[:, 2] * boxes[:, 3], gt.crowd[annotations])


def _mask_ious(
    gt: GroundTruth, rows: np.ndarray, detections: np.ndarray, keys: np.ndarray, found: Shapes, lowest: float
) -> np.ndarray:
    """(P,) IoU of masks, computed only where it can reach `lowest`, else 0.

    Two masks share no more than their tight boxes do, nor than the smaller one has. One library call per cell decodes
    each of its masks once.
    """
    ious = np.zeros(len(rows))
    close = np.flatnonzero(_mask_iou_bounds(gt, rows, detections, found) >= lowest)
    ious[close] = _rle_ious(gt, rows[close], detections[close], keys, found, list)
    if found.by_boundary:
        close = np.flatnonzero(ious >= lowest)
        by_boundary = _rle_ious(gt, rows[close], detections[close], keys, found, boundaries)
        ious[close] = np.minimum(ious[close], by_boundary)
    return ious


def _rle_ious(
    gt: GroundTruth,
    rows: np.ndarray,
    detections: np.ndarray,
    keys: np.ndarray,
    found: Shapes,
    seen_as: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
) -> np.ndarray:
    """(P,) IoU of what `seen_as` makes of both masks of each pair."""
    assert found.rles is not None, "detections were read without masks"
    found_at, i = np.unique(detections, return_inverse=True)
    truth_at, j = np.unique(rows, return_inverse=True)  # annotations of a cell are neighbours in this order
    found_rles = seen_as([found.rles[k] for k in found_at])
    truth_rles = seen_as(gt.rle_dicts(gt.by_cell[truth_at]))
    crowd = gt.crowd[gt.by_cell[truth_at]].tolist()
    found_cells, truth_cells = keys[found_at], gt.keys[gt.by_cell[truth_at]]
    cells = np.unique(found_cells)
    bounds = [np.searchsorted(c, cells, side=side) for c in (found_cells, truth_cells) for side in ("left", "right")]
    pair_bounds = np.append(np.searchsorted(keys[detections], cells), len(detections))
    parts = [np.zeros(0)]
    for d0, d1, g0, g1, p0, p1 in zip(*(b.tolist() for b in bounds), pair_bounds[:-1], pair_bounds[1:], strict=True):
        matrix = rle_tools.iou(found_rles[d0:d1], truth_rles[g0:g1], crowd[g0:g1])
        parts.append(matrix[i[p0:p1] - d0, j[p0:p1] - g0])
    return np.concatenate(parts)


def _mask_iou_bounds(gt: GroundTruth, rows: np.ndarray, detections: np.ndarray, found: Shapes) -> np.ndarray:
    """(P,) an upper bound of each mask IoU."""
    assert found.rles is not None, "detections were read without masks"
    assert gt.mask_boxes is not None, "ground truth was read without masks"
    assert gt.mask_areas is not None, "ground truth was read without masks"
    annotations = gt.by_cell[rows]
    found_at, where = np.unique(detections, return_inverse=True)
    boxes = mask_boxes([found.rles[k] for k in found_at])
    areas, gt_areas = found.areas[detections], gt.mask_areas[annotations]
    common = _intersections(boxes[where], gt.mask_boxes[annotations])
    common = np.minimum(common, np.minimum(areas, gt_areas))
    return _ious(common, areas, gt_areas, gt.crowd[annotations])
