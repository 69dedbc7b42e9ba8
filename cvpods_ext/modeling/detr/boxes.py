"""Boxes as the transformer knows them: centre and size in [0, 1] of the image, and as logits.

Shapes: B, G = boxes; all functions take any leading dimensions unless they say otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOGIT_EPS = 1e-3  # the published models were trained with it; others use 1e-5
_AREA_EPS = 1e-6


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of values in [0, 1]; both x and 1 - x count as at least 0.001."""
    x = x.clamp(0, 1)
    return (x.clamp(min=_LOGIT_EPS) / (1 - x).clamp(min=_LOGIT_EPS)).log()


def to_corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, y, width, height -> x1, y1, x2, y2."""
    centre, half = boxes[..., :2], 0.5 * boxes[..., 2:]
    return torch.cat((centre - half, centre + half), dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """(..., 4) x1, y1, x2, y2 -> centre x, y, width, height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU (https://arxiv.org/abs/1902.09630) of corner boxes, broadcasting: (..., 4), (..., 4) -> (...) in [-1, 1].

    Defined for boxes without area too: union and hull are enlarged by 1e-6 where they divide.
    """
    area_first = (first[..., 2] - first[..., 0]) * (first[..., 3] - first[..., 1])
    area_second = (second[..., 2] - second[..., 0]) * (second[..., 3] - second[..., 1])
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = area_first + area_second - intersection
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).clamp(min=0).prod(dim=-1)
    return intersection / (union + _AREA_EPS) - (hull - union) / (hull + _AREA_EPS)
