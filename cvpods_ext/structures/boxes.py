"""Axis-aligned boxes as plain tensors: (N, 4) float, XYXY, absolute pixels, no "+1" anywhere."""

from __future__ import annotations

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """(N, 4) -> (N,) width times height."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Limit (..., 4) boxes to an image of `size` = (height, width); x to [0, width], y to [0, height]."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack((x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), dim=-1)


def clip_to(boxes: Tensor, limits: Tensor) -> Tensor:
    """Limit (..., 4) boxes to images of different size: `limits` (..., 4) = width, height, width, height."""
    return torch.minimum(boxes.clamp(min=0), limits)


def nonempty(boxes: Tensor, threshold: float = 0.0) -> Tensor:
    """(N, 4) -> (N,) bool: both sides strictly longer than `threshold`."""
    return (boxes[:, 2] - boxes[:, 0] > threshold) & (boxes[:, 3] - boxes[:, 1] > threshold)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """(..., 4), (..., 4) -> (...) intersection over union, broadcasting; exactly 0 where boxes do not meet, never NaN.

    Works in few buffers, since first and second may broadcast to millions of pairs.
    """
    x1, y1, x2, y2 = first.unbind(dim=-1)
    u1, v1, u2, v2 = second.unbind(dim=-1)
    intersection = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    intersection.mul_(torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0))
    union = ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1)).sub_(intersection)
    ratio = torch.div(intersection, union, out=union)
    return ratio.masked_fill_(intersection <= 0, 0)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N, 4), (M, 4) -> (N, M) intersection over union."""
    return iou(first[:, None], second[None])


def scale(boxes: Tensor, x: float, y: float) -> Tensor:
    """Stretch (N, 4) boxes by a factor per axis."""
    return boxes * boxes.new_tensor([x, y, x, y])


def flip_horizontal(boxes: Tensor, width: float) -> Tensor:
    """Mirror (N, 4) boxes in an image of `width`; coordinates are continuous, so x becomes width - x."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack((width - x2, y1, width - x1, y2), dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Corners to corner and size, the layout of COCO and LVIS json files."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] - boxes[..., :2]), dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Corner and size to corners."""
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), dim=-1)
