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


def nonempty(boxes: Tensor, threshold: float = 0.0) -> Tensor:
    """(N, 4) -> (N,) bool: both sides strictly longer than `threshold`."""
    return (boxes[:, 2] - boxes[:, 0] > threshold) & (boxes[:, 3] - boxes[:, 1] > threshold)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N, 4), (M, 4) -> (N, M) intersection over union; exactly 0 where boxes do not meet, never NaN."""
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (bottom_right - top_left).clamp_(min=0).prod(dim=2)
    union = area(first)[:, None] + area(second)[None, :] - intersection
    return torch.where(intersection > 0, intersection / union, torch.zeros_like(intersection))


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
