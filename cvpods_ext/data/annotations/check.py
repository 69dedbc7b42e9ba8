"""Second pass over an annotation json: what each annotation refers to, what is wrong with it, what can be derived.

The rules are those of `policy`. Shapes: M = annotations in the json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from cvpods_ext.data.annotations import outlines, policy
from cvpods_ext.data.annotations.image_columns import ImageColumns
from cvpods_ext.data.annotations.policy import Box, Mask, Reference

_DISAGREE = 0.5  # IoU of a box with the extent of its polygons below which one of them must be wrong
_AGREE = 0.9
REASONS = (*policy.REFERENCE_WORDS, *policy.BOX_WORDS[1:], *policy.MASK_WORDS[1:])
_FIRST_BOX = len(policy.REFERENCE_WORDS) - 1  # position in REASONS of no problem of a box
_FIRST_MASK = _FIRST_BOX + len(policy.BOX_WORDS) - 1


@dataclass(frozen=True)
class Checked:
    """What the second pass found out about the raw columns.

    image and label (M,) are positions in the lists of images and categories, -1 where unknown; reference, box_problem
    and mask_problem (M,) are members of `policy`; boxes (M, 4) XYWH and areas (M,) as written or derived; `far` (M,)
    bool marks polygons that reach far beyond their image. `noted` counts what did not cost an annotation; `disagree`
    are the annotations whose box and polygons contradict each other, of which `corners` agree if their boxes are read
    as two corners.
    """

    image: np.ndarray
    label: np.ndarray
    reference: np.ndarray
    box_problem: np.ndarray
    mask_problem: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    far: np.ndarray
    has_masks: bool
    noted: Mapping[str, int]
    disagree: int
    corners: int

    def problems(self, masks: bool) -> np.ndarray:
        """(M,) uint8 positions in `REASONS`: why each annotation is not trained on, 0 for those that are.

        A network of boxes needs no `masks`; the first of several reasons counts.
        """
        found = self.reference.copy()
        columns = [(self.box_problem, _FIRST_BOX)]
        if masks and self.has_masks:
            columns.append((self.mask_problem, _FIRST_MASK))
        for problems, first in columns:
            fresh = (found == 0) & (problems > 0)
            found[fresh] = problems[fresh] + first
        return found

    def unrelated(self) -> dict[str, int]:
        """How many annotations are left out or exempt whatever their box and mask are, by reason."""
        return _counts(self.reference, policy.REFERENCE_WORDS)

    def dropped(self, masks: bool) -> dict[str, int]:
        """How many annotations are not trained on, by reason."""
        return _counts(self.problems(masks), REASONS)


def _counts(problems: np.ndarray, words: Sequence[str]) -> dict[str, int]:
    """How often each word but the first, which stands for no problem, applies."""
    counts = np.bincount(problems, minlength=len(words)).tolist()
    return {word: count for word, count in zip(words[1:], counts[1:], strict=True) if count}


def check(columns: Mapping[str, np.ndarray], images: ImageColumns, category_ids: np.ndarray) -> Checked:
    """Find every annotation that refers to nothing or has no usable box or mask; the first reason found counts."""
    image = lookup(np.asarray(images.ids, np.int64), columns["image_id"])
    label = lookup(category_ids, columns["category_id"])
    reference = np.array(columns["reference"])
    reference[(image < 0) & (reference != Reference.UNREADABLE)] = Reference.NO_IMAGE
    _mark(reference, Reference.NO_CATEGORY, label < 0)
    image[reference == Reference.UNREADABLE] = label[reference == Reference.NO_CATEGORY] = -1  # -1 may be an id
    if len(images.ids):
        sides = np.stack([np.asarray(side, np.float64) for side in (images.widths, images.heights)], axis=1)[image]
    else:
        sides = np.zeros((len(image), 2))
    extents = outlines.annotation_extents(
        columns["rings"], outlines.ring_extents(columns["points"], columns["coordinates"])
    )
    mask_problem, far = _check_masks(columns, extents, sides)
    boxes, box_problem = np.array(columns["box"]), np.array(columns["box_problem"])
    derived_boxes = _derive_boxes(boxes, box_problem, mask_problem, extents, sides)
    _check_boxes(boxes, box_problem, sides)
    areas = _derive_areas(columns, boxes, mask_problem)
    sound = (reference == 0) & (box_problem == 0)
    disagree, corners = _contradictions(boxes, extents, sound & (mask_problem == 0) & (columns["rings"] > 0))
    has_masks = bool((mask_problem != Mask.NO_MASK).any())
    ids = columns["id"]
    noted = {
        "annotation id given twice or missing": len(ids) - len(np.unique(ids[ids >= 0])),
        "box that is absent, derived from the mask": derived_boxes,
        "polygon that reaches far beyond its image, cut off there": int(far.sum()),
        "box that its polygons contradict": disagree,
    }
    return Checked(
        image,
        label,
        reference,
        box_problem,
        mask_problem,
        boxes,
        areas,
        far,
        has_masks,
        {kind: count for kind, count in noted.items() if count},
        disagree,
        corners,
    )


def _mark(problems: np.ndarray, problem: IntEnum, found: np.ndarray | np.bool) -> None:
    problems[(problems == 0) & found] = problem


def _check_masks(
    columns: Mapping[str, np.ndarray], extents: np.ndarray, sides: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Problems of the masks (M,), and which polygons reach more than one image side beyond their image."""
    problem = np.array(columns["mask_problem"])
    polygons = (columns["rings"] > 0) & (problem == 0)
    with np.errstate(invalid="ignore"):
        finite = (np.abs(extents) <= policy.FARTHEST).all(axis=1)  # false for NaN as well
        _mark(problem, Mask.NOT_FINITE, polygons & ~finite)
        _mark(problem, Mask.OUTSIDE, polygons & ((extents[:, 2:] < 0) | (extents[:, :2] > sides)).any(axis=1))
        far = polygons & ((extents[:, :2] < -sides) | (extents[:, 2:] > 2 * sides)).any(axis=1)
        reach = (extents[:, 2:] - extents[:, :2]).sum(axis=1)
        reach = np.where(far, 3 * sides.sum(axis=1), reach)  # what is left of it when it is cut off
    of_rle = (columns["rle_length"] > 0) & (columns["rle_size"] != sides[:, ::-1]).any(axis=1)
    _mark(problem, Mask.BAD_RLE, of_rle)
    # An outline is no longer than its extent times its points; only what exceeds the limit so is measured.
    suspects = np.flatnonzero(polygons & (problem == 0) & (reach * _points(columns) > policy.LONGEST_OUTLINE))
    measured = suspects[~far[suspects]]
    problem[measured[outlines.outline_lengths(columns, measured) > policy.LONGEST_OUTLINE]] = Mask.TOO_LONG
    problem[suspects[far[suspects]]] = Mask.TOO_LONG
    return problem, far & (problem == 0)


def _points(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(M,) vertices of all rings of each annotation."""
    owner = np.repeat(np.arange(len(columns["rings"])), columns["rings"])
    return np.bincount(owner, columns["points"], minlength=len(columns["rings"]))


def _derive_boxes(
    boxes: np.ndarray, problem: np.ndarray, mask_problem: np.ndarray, extents: np.ndarray, sides: np.ndarray
) -> int:
    """Give annotations without a box the extent of their mask within the image; how many there were."""
    absent = (problem == Box.NO_BOX) & (mask_problem == 0)
    of_polygons = absent & ~np.isfinite(boxes).all(axis=1)  # those of RLE were derived when they were read
    limits = np.tile(sides, 2)[of_polygons]
    corners = np.clip(extents[of_polygons], 0, limits)
    boxes[of_polygons] = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    problem[absent & np.isfinite(boxes).all(axis=1)] = Box.SOUND
    return int((absent & (problem == 0)).sum())


def _check_boxes(boxes: np.ndarray, problem: np.ndarray, sides: np.ndarray) -> None:
    low, size = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):
        _mark(problem, Box.NOT_FINITE, ~(np.abs(boxes) <= policy.FARTHEST).all(axis=1))
        _mark(problem, Box.NEGATIVE, (size < 0).any(axis=1))
        _mark(problem, Box.EMPTY, (size == 0).any(axis=1))
        _mark(problem, Box.OUTSIDE, ((low >= sides) | (low + size <= 0)).any(axis=1))


def _derive_areas(columns: Mapping[str, np.ndarray], boxes: np.ndarray, mask_problem: np.ndarray) -> np.ndarray:
    """Areas as written (or of an RLE), else of the polygons, else of the box, else 0."""
    areas = np.array(columns["area"])
    absent = np.isnan(areas)
    polygons = np.flatnonzero(absent & (columns["rings"] > 0) & (mask_problem == 0))
    areas[polygons] = outlines.polygon_areas(columns, polygons)
    rest = absent & np.isnan(areas)
    areas[rest] = np.nan_to_num(boxes[rest, 2] * boxes[rest, 3], nan=0.0, posinf=0.0, neginf=0.0)
    return areas


def _contradictions(boxes: np.ndarray, extents: np.ndarray, comparable: np.ndarray) -> tuple[int, int]:
    """How many boxes contradict the extent of their polygons, and how many of those agree as two corners."""
    rows = np.flatnonzero(comparable)
    written, extent = boxes[rows], extents[rows]
    as_sides = np.concatenate((written[:, :2], written[:, :2] + written[:, 2:]), axis=1)
    wrong = outlines.box_ious(as_sides, extent) < _DISAGREE
    thin = (extent[:, 2:] - extent[:, :2] < 2).any(axis=1)  # a pixel of rounding is much of such an object
    wrong &= ~thin
    return int(wrong.sum()), int((outlines.box_ious(written[wrong], extent[wrong]) > _AGREE).sum())


def lookup(sorted_or_not: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Position of every wanted id in a list of distinct ids, -1 where it is not there."""
    if len(sorted_or_not) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(sorted_or_not, kind="stable")
    ids = sorted_or_not[order]
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, order[at], -1)


def facts_of(checked: Checked, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts of what was left out, by use, for the metadata of the cache."""
    return {
        "annotations": len(columns["id"]),
        "has_masks": checked.has_masks,
        "dropped": checked.dropped(masks=True),
        "dropped_of_boxes": checked.dropped(masks=False),
        "unrelated": checked.unrelated(),
        "disagree": checked.disagree,
        "corners": checked.corners,
        "crowds": int((columns["crowd"] != 0)[checked.reference == 0].sum()),
    }
