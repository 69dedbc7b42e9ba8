"""Greedy matching of detections to annotations at all IoU thresholds and area ranges at once.

By the rule of COCO and LVIS: within a cell detections choose in order of their scores; each takes the free annotation
of the highest IoU at or above the threshold (ties: the later one), and an annotation that is ignored in the area range
only if no other is left. All combinations of threshold and area range are bits of one integer (`protocol.Criteria`),
so one pass decides them; cells are independent, so a pass takes the next decision of every cell together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvpods_ext.evaluation.detection.iou import Overlaps
from cvpods_ext.evaluation.detection.protocol import OFFICIAL, Criteria


@dataclass(frozen=True)
class Matches:
    """Bits by combination: of N detections, `matched` to anything and `to_ignored`; of annotations, `taken`.

    `partner` (N,) is the annotation at the first threshold over all areas, -1 for none.
    """

    matched: np.ndarray
    to_ignored: np.ndarray
    taken: np.ndarray
    partner: np.ndarray


def outside(areas: np.ndarray, criteria: Criteria) -> np.ndarray:
    """(N,) areas -> (N,) bits of the area ranges (both ends included) that they lie outside of."""
    bits = np.zeros(len(areas), dtype=np.uint64)
    for (low, high), area_bits in zip(criteria.areas, criteria.area_bits, strict=True):
        bits |= np.where((areas < low) | (areas > high), area_bits, np.uint64(0))
    return bits


def match(
    pairs: Overlaps, cells: np.ndarray, ignored: np.ndarray, reusable: np.ndarray, criteria: Criteria = OFFICIAL
) -> Matches:
    """Match N detections, ordered by cell and descending score, as `pairs.detections` counts them.

    cells (N,) int; ignored (A,) bits of the combinations in which an annotation does not count; reusable (A,) bool for
    crowds, which any number of detections may match.
    """
    remaining = np.full(len(cells), criteria.every)
    to_ignored = np.zeros(len(cells), dtype=np.uint64)
    taken = np.zeros(len(ignored), dtype=np.uint64)
    partner = np.full(len(cells), -1, dtype=np.int64)
    consumable = np.where(reusable, np.uint64(0), criteria.every)
    decisions = _decisions(pairs, cells, ignored, criteria)
    for start, stop in zip(decisions.rounds[:-1], decisions.rounds[1:], strict=True):
        d, a = decisions.detections[start:stop], decisions.annotations[start:stop]
        take = decisions.allowed[start:stop] & remaining[d] & ~taken[a]
        remaining[d] &= ~take
        taken[a] |= take & consumable[a]
        to_ignored[d] |= np.where(decisions.for_ignored[start:stop], take, np.uint64(0))
        first = (take & np.uint64(1)) != 0
        partner[d[first]] = a[first]
    return Matches(~remaining & criteria.every, to_ignored, taken, partner)


@dataclass(frozen=True)
class _Decisions:
    """Overlaps in the order in which they are offered, grouped in rounds of one decision per cell.

    `allowed` are the bits in which the pair may match at its turn; `rounds` (R + 1,) are the bounds of the groups.
    """

    detections: np.ndarray
    annotations: np.ndarray
    allowed: np.ndarray
    for_ignored: np.ndarray
    rounds: np.ndarray


def _decisions(pairs: Overlaps, cells: np.ndarray, ignored: np.ndarray, criteria: Criteria) -> _Decisions:
    """A detection is offered its annotations by falling IoU: first as ones that count, then as ignored ones."""
    order = np.lexsort((-pairs.annotations, -pairs.ious, pairs.detections))
    detections, annotations = pairs.detections[order], pairs.annotations[order]
    reached = _bits_by_reached(criteria)[np.searchsorted(criteria.thresholds, pairs.ious[order], side="right")]
    ignored_bits = ignored[annotations]
    allowed = np.concatenate((reached & ~ignored_bits, reached & ignored_bits))
    for_ignored = np.repeat([False, True], len(order))
    offers = np.flatnonzero(allowed)
    both = np.tile(detections, 2)
    offers = offers[np.lexsort((for_ignored[offers], both[offers]))]
    cell = cells[both[offers]]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    turn = np.arange(len(offers)) - np.repeat(starts, np.diff(np.append(starts, len(offers))))
    offers = offers[np.argsort(turn, kind="stable")]
    rounds = np.concatenate(([0], np.cumsum(np.bincount(turn))))
    return _Decisions(both[offers], np.tile(annotations, 2)[offers], allowed[offers], for_ignored[offers], rounds)


def _bits_by_reached(criteria: Criteria) -> np.ndarray:
    """(T + 1,) the bits in which a pair may match, by the number of thresholds that its IoU reaches."""
    count, areas = len(criteria.thresholds), len(criteria.areas)
    return np.array([sum(((1 << n) - 1) << (count * a) for a in range(areas)) for n in range(count + 1)], np.uint64)
