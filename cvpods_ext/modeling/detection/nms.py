"""Greedy non-maximum suppression within groups: pyramid levels among proposals, classes among detections.

Shapes: N = images, P = boxes, L = pyramid levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from cvpods_ext.modeling.layers import to_device
from cvpods_ext.structures import boxes as box_ops

BLOCK = 512


def keep_per_level(boxes: Tensor, scores: Tensor, sizes: Sequence[int], iou_threshold: float) -> Tensor:
    """Which boxes survive among those of their own image and level: (N, P, 4), (N, P) -> (N, P) bool.

    `sizes` splits P into the L levels.
    """
    rule = keep_in_one_call if boxes.is_cuda else keep_level_by_level
    return rule(boxes, scores, sizes, iou_threshold)


def keep_level_by_level(boxes: Tensor, scores: Tensor, sizes: Sequence[int], iou_threshold: float) -> Tensor:
    """One small suppression per image and level, the cheapest way on a processor."""
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(len(boxes)):
        start = 0
        for size in sizes:
            level = slice(start, start + size)
            keep[image, start + nms(boxes[image, level], scores[image, level], iou_threshold)] = True
            start += size
    return keep


def keep_in_one_call(boxes: Tensor, scores: Tensor, sizes: Sequence[int], iou_threshold: float) -> Tensor:
    """All groups moved apart in float64, where the shift costs no precision: a GPU is waited for only once."""
    levels = torch.repeat_interleave(to_device(torch.tensor(sizes), boxes.device), output_size=sum(sizes))
    groups = torch.arange(len(boxes), device=boxes.device)[:, None] * len(sizes) + levels
    reach = boxes.amax() - boxes.amin() + 1
    apart = boxes.double() + (groups * reach.double())[..., None]
    keep = torch.zeros_like(scores, dtype=torch.bool)
    keep.view(-1)[nms(apart.view(-1, 4), scores.reshape(-1).double(), iou_threshold)] = True
    return keep


def first_survivors(boxes: Tensor, classes: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Positions of the first `limit` boxes that per-class greedy suppression keeps: (P, 4), (P,) -> (at most limit,).

    Boxes are ordered best first. Equal to a loop over the classes, bit by bit, but costs the same for one class as
    for a thousand, and stops as soon as enough survive: a box can only be suppressed by a better one, so the rest
    cannot matter. Works in blocks of 512, each against the survivors so far and then against itself.
    """
    survivors = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    for start in range(0, len(boxes), BLOCK):
        box, label = boxes[start : start + BLOCK], classes[start : start + BLOCK]
        alive = torch.ones(len(box), dtype=torch.bool, device=boxes.device)
        if start:
            alive &= ~_conflicts(boxes[survivors], classes[survivors], box, label, iou_threshold).any(dim=0)
        suppressors = _conflicts(box, label, box, label, iou_threshold).triu_(diagonal=1)
        kept = _resolve(suppressors, alive)
        survivors = torch.cat((survivors, start + kept.nonzero()[:, 0]))
        if len(survivors) >= limit:
            break
    return survivors[:limit]


def _conflicts(boxes: Tensor, classes: Tensor, others: Tensor, other_classes: Tensor, threshold: float) -> Tensor:
    overlap = box_ops.pairwise_iou(boxes, others) > threshold
    return overlap.logical_and_(classes[:, None] == other_classes[None])


def _resolve(suppressors: Tensor, alive: Tensor) -> Tensor:
    """Greedy suppression as a fixed point: a box is kept if no better kept box conflicts with it.

    Every round settles at least the next box in order, so the only fixed point is the greedy answer; a handful of
    rounds is usual.
    """
    kept = alive
    while True:
        after = alive & ~(suppressors & kept[:, None]).any(dim=0)
        if torch.equal(after, kept):
            return kept
        kept = after
