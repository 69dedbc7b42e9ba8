"""Soft non-maximum suppression (https://arxiv.org/abs/1704.04503): overlap lowers a score instead of removing a box.

Shapes: P = boxes, E = pairs of boxes of one class that affect each other.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cvpods_ext.structures import boxes as box_ops

Decay = Literal["linear", "gaussian"]

MIN_SCORE = 1e-3  # a box whose score falls below is no detection any more
PAIRS_AT_ONCE = 1 << 22  # IoUs computed together; bounds the memory of images with very many boxes


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    *,
    decay: Decay = "linear",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = MIN_SCORE,
) -> tuple[Tensor, Tensor]:
    """Positions of the surviving boxes and their lowered scores, best first: (P, 4), (P,), (P,) -> (K,), (K,).

    The rule, within each class: take the best remaining box, keep it with the score that it has by then, and multiply
    the score of every other one by 1 - IoU where IoU >= `iou_threshold` ("linear"), or by exp(-IoU^2 / sigma)
    ("gaussian"). Boxes of equal classes only see each other; pass equal `classes` for suppression across them.

    Boxes are not taken one by one. One that has the best score among all that affect it is taken before any of them,
    hence with the score it has now: all such boxes of all classes are taken at once, their neighbours are lowered, and
    so on. The result is the sequential one, up to the rounding of products.
    """
    kept = (scores >= min_score).nonzero()[:, 0]
    kept = kept[scores[kept].sort(descending=True, stable=True).indices]
    kept = kept[classes[kept].sort(stable=True).indices]
    lowered = scores[kept].clone()
    first, second, factor = _pairs(boxes[kept], classes[kept], decay, iou_threshold, sigma)
    while len(first):
        # equal scores: the earlier box wins
        loser = torch.where(lowered[second] > lowered[first], first, second)
        best = torch.ones_like(lowered, dtype=torch.bool).index_fill_(0, loser, False)
        taken = best[first] | best[second]
        touched = torch.where(best[first], second, first)[taken]
        lowered.scatter_reduce_(0, touched, factor[taken], reduce="prod")
        settled = best | (lowered < min_score)
        open_ = ~(settled[first] | settled[second])
        first, second, factor = first[open_], second[open_], factor[open_]
    order = lowered.sort(descending=True, stable=True).indices
    order = order[lowered[order] >= min_score]
    return kept[order], lowered[order]


def _pairs(
    boxes: Tensor, classes: Tensor, decay: Decay, iou_threshold: float, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions i < j of boxes of one class that affect each other, and the factor that either costs the other: (E,).

    `classes` are sorted.
    """
    count = len(classes)
    position = torch.arange(count, device=boxes.device)
    _, sizes = torch.unique_consecutive(classes, return_counts=True)
    partners = torch.repeat_interleave(sizes.cumsum(0), sizes) - position - 1  # later boxes of the same class
    total = partners.cumsum(0)
    parts = []
    start = 0
    while start < count:
        limit = total[start] - partners[start] + PAIRS_AT_ONCE
        stop = max(start + 1, int(torch.searchsorted(total, limit, right=True)))
        rows, lengths = position[start:stop], partners[start:stop]
        first = torch.repeat_interleave(rows, lengths)
        offset = torch.arange(len(first), device=boxes.device)
        offset -= torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        second = first + 1 + offset
        iou = box_ops.iou(boxes[first], boxes[second])
        near = (iou >= iou_threshold) & (iou > 0) if decay == "linear" else iou > 0
        iou = iou[near]
        factor = 1 - iou if decay == "linear" else torch.exp(-(iou**2) / sigma)
        parts.append((first[near], second[near], factor))
        start = stop
    if not parts:
        return position, position, boxes.new_zeros(0)
    first, second, factor = (torch.cat(column) for column in zip(*parts, strict=True))
    return first, second, factor
