"""What became of every detection and every object, at each IoU threshold and area range: all metrics derive from it.

Shapes: N = detections in verified (image, category) pairs, A = annotations that the protocol counts, K = categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.greedy_matching import match, outside
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.iou import Overlaps, detection_shapes, overlapping_pairs
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, Criteria


@dataclass(frozen=True)
class Evaluated:
    """Detections in the order in which a category ranks them: by category, falling score, image, file order.

    row (N,) int64 place in the shards, in the order of `shard_files`; image, category (N,) int32 positions; score,
    area (N,); rank (N,) int32 place in its cell, from 0; hits and misses (N,) uint64, the bits of `protocol.Criteria`
    in which it is a true and a false positive, neither where it is not evaluated; partner (N,) int32 the annotation at
    the first threshold (IoU 0.5) over all areas, -1 for none.
    """

    row: np.ndarray
    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    area: np.ndarray
    rank: np.ndarray
    hits: np.ndarray
    misses: np.ndarray
    partner: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: np.ndarray) -> Evaluated:
        """The rows, in that order."""
        return Evaluated(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class Objects:
    """Annotations: image, category (A,) int32 positions; area (A,); counted (A,) uint64 bits in which it counts."""

    image: np.ndarray
    category: np.ndarray
    area: np.ndarray
    counted: np.ndarray


@dataclass(frozen=True)
class MatchTable:
    """Evaluated detections and objects of a task; image_ids (I,), category_ids, names and frequency (K,) of the split;
    the criteria that the bits stand for.
    """

    evaluated: Evaluated
    objects: Objects
    image_ids: np.ndarray
    category_ids: np.ndarray
    category_names: list[str]
    frequency: np.ndarray
    criteria: Criteria = OFFICIAL

    @property
    def num_categories(self) -> int:
        """Categories, annotated or not."""
        return len(self.category_ids)


@dataclass(frozen=True)
class Candidates:
    """Detections of some images with their overlaps, before matching; the result of one worker."""

    rows: np.ndarray
    keys: np.ndarray
    score: np.ndarray
    area: np.ndarray
    pairs: Overlaps


def gather(gt: GroundTruth, table: DetectionTable, rows: np.ndarray, task: str, lowest: float) -> Candidates:
    """Detections `rows` of `table`, ordered by cell and falling score, with everything that matching needs.

    `rows` must come by falling score within each image; pairs below an IoU of `lowest` are left out. LVIS drops
    detections of area 0, COCO keeps them.
    """
    keys = gt.cells(table.image_ids[rows], table.category_ids[rows])
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    kept = table.take(rows)
    found = detection_shapes(gt, kept, task)
    pairs = overlapping_pairs(gt, keys, found, lowest)
    candidates = Candidates(rows, keys, kept.scores, found.areas, pairs)
    if gt.federated and not (found.areas > 0).all():
        return _with_area(candidates)
    return candidates


def _with_area(candidates: Candidates) -> Candidates:
    """Without detections of area 0; these overlap nothing, so no pair is lost."""
    solid = candidates.area > 0
    pairs = candidates.pairs
    return Candidates(
        candidates.rows[solid],
        candidates.keys[solid],
        candidates.score[solid],
        candidates.area[solid],
        Overlaps((np.cumsum(solid) - 1)[pairs.detections], pairs.annotations, pairs.ious),
    )


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """Candidates of disjoint images as one."""
    offsets = np.cumsum([0] + [len(part.keys) for part in parts])
    return Candidates(
        rows=np.concatenate([part.rows for part in parts]),
        keys=np.concatenate([part.keys for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        area=np.concatenate([part.area for part in parts]),
        pairs=Overlaps(
            np.concatenate([part.pairs.detections + offset for part, offset in zip(parts, offsets, strict=False)]),
            np.concatenate([part.pairs.annotations for part in parts]),
            np.concatenate([part.pairs.ious for part in parts]),
        ),
    )


def match_candidates(
    gt: GroundTruth, candidates: Candidates, criteria: Criteria = OFFICIAL
) -> tuple[Evaluated, Objects]:
    """Match, then decide which unmatched detections are errors.

    An unmatched detection is not evaluated outside the area range, nor where its category is incompletely annotated.
    """
    every = criteria.every
    ignored = outside(gt.areas, criteria) | np.where(gt.crowd, every, np.uint64(0))
    matches = match(candidates.pairs, candidates.keys, ignored, gt.crowd, criteria)
    incomplete = np.isin(candidates.keys, gt.not_exhaustive)
    exempt = outside(candidates.area, criteria) | np.where(incomplete, every, np.uint64(0))
    image, category = np.divmod(candidates.keys, gt.num_categories)
    starts = np.flatnonzero(np.diff(candidates.keys, prepend=-1))
    rank = np.arange(len(image)) - np.repeat(starts, np.diff(np.append(starts, len(image))))
    evaluated = Evaluated(
        row=candidates.rows,
        image=image.astype(np.int32),
        category=category.astype(np.int32),
        score=candidates.score,
        area=candidates.area,
        rank=rank.astype(np.int32),
        hits=matches.matched & ~matches.to_ignored,
        misses=~matches.matched & ~exempt & every,
        partner=matches.partner.astype(np.int32),
    )
    objects = Objects(gt.images.astype(np.int32), gt.categories.astype(np.int32), gt.areas, ~ignored & every)
    return evaluated.take(_ranking(image, candidates.score, category)), objects


def _ranking(image: np.ndarray, score: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Stable order by category, falling score, image; one key after the other, since small integers sort fastest."""
    order = np.arange(len(image)) if (np.diff(image) >= 0).all() else np.argsort(image, kind="stable")
    order = order[np.argsort(-score[order], kind="stable")]
    narrow = category.astype(np.uint16 if category.max(initial=0) < 1 << 16 else np.int64)
    return order[np.argsort(narrow[order], kind="stable")]
