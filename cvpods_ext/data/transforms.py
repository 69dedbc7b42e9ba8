"""Geometry of training and test images, applied to pixels, boxes and masks together.

A transform is a callable (image, targets, rng) -> (image, targets). All randomness comes from `rng`, so a sample is
the same after a resume, on any worker and any rank. Boxes stay float64 until `finish`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.data.annotations import polygon_clip
from cvpods_ext.structures import BitMasks, Masks, PolygonMasks, Targets
from cvpods_ext.structures import boxes as box_ops

Size = tuple[int, int]


class Transform(Protocol):
    """uint8 (3, H, W) and its targets in, the same out."""

    def __call__(self, image: Tensor, targets: Targets, rng: np.random.Generator) -> tuple[Tensor, Targets]:
        """All of its randomness is drawn from `rng`."""
        ...


def shortest_edge_size(size: Size, shortest: int, longest: int) -> Size:
    """(height, width) whose shorter side is `shortest`, unless the longer side would exceed `longest`."""
    height, width = size
    scale = shortest / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Bilinear with antialiasing on uint8 (3, H, W).

    Like Pillow, which the published models were trained with, but for one grey level in less than 1 % of the values.
    """
    if tuple(image.shape[1:]) == size:
        return image
    one_pixel = size == (1, 1)  # which the uint8 kernel of torch 2.15 refuses
    pixels = image[None].float() if one_pixel else image[None]
    resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return resized.round().to(torch.uint8) if one_pixel else resized


def resize(image: Tensor, targets: Targets, size: Size) -> tuple[Tensor, Targets]:
    """Stretch to `size` = (height, width)."""
    y, x = size[0] / image.shape[1], size[1] / image.shape[2]
    masks = targets.masks.scale(x, y) if targets.masks is not None else None
    boxes = box_ops.scale(targets.boxes, x, y)
    return resize_image(image, size), replace(targets, boxes=boxes, masks=masks, size=size)


@dataclass(frozen=True)
class ShortestEdgeResize:
    """Bring the shorter side to one of `sizes`, drawn anew for every image; the longer side to `max_size` at most."""

    sizes: Sequence[int]
    max_size: int

    def __call__(self, image: Tensor, targets: Targets, rng: np.random.Generator) -> tuple[Tensor, Targets]:
        """(3, H, W) -> (3, H', W')."""
        shortest = int(self.sizes[int(rng.integers(len(self.sizes)))])
        return resize(image, targets, shortest_edge_size(targets.size, shortest, self.max_size))


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror with a probability; x becomes width - x."""

    probability: float = 0.5

    def __call__(self, image: Tensor, targets: Targets, rng: np.random.Generator) -> tuple[Tensor, Targets]:
        """(3, H, W) -> (3, H, W)."""
        if rng.random() >= self.probability:
            return image, targets
        width = targets.size[1]
        masks = targets.masks.flip_horizontal(width) if targets.masks is not None else None
        boxes = box_ops.flip_horizontal(targets.boxes, width)
        return image.flip(2), replace(targets, boxes=boxes, masks=masks)


@dataclass(frozen=True)
class LargeScaleJitter:
    """Scale by a factor over a wide range, then crop to a square at most (Ghiasi et al., CVPR 2021).

    With s from U(low, high) the image is fitted into a square of s * side, sides rounded half to even, and cropped
    to side x side at an offset that is the same share of the slack on both axes. Nothing is padded. Boxes become
    tight around what is left of their masks.
    """

    side: int
    low: float = 0.1
    high: float = 2.0

    def __call__(self, image: Tensor, targets: Targets, rng: np.random.Generator) -> tuple[Tensor, Targets]:
        """(3, H, W) -> (3, at most side, at most side)."""
        scale = rng.uniform(self.low, self.high)
        image, targets = resize(image, targets, self.fitted_size(targets.size, scale))
        x, y, width, height = self.window(targets.size, rng.uniform())
        return crop(image, targets, x, y, width, height)

    def fitted_size(self, size: Size, scale: float) -> Size:
        """(height, width) after scaling into a square of `scale` times the side."""
        factor = min(scale * self.side / size[0], scale * self.side / size[1])
        return max(1, int(np.round(size[0] * factor))), max(1, int(np.round(size[1] * factor)))

    def window(self, size: Size, share: float) -> tuple[int, int, int, int]:
        """x, y, width, height of the crop at `share` in [0, 1) of the slack of each axis."""
        slack_y, slack_x = (max(0, length - self.side) for length in size)
        x, y = int(np.round(slack_x * share)), int(np.round(slack_y * share))
        return x, y, min(self.side, size[1]), min(self.side, size[0])


def crop(image: Tensor, targets: Targets, x: int, y: int, width: int, height: int) -> tuple[Tensor, Targets]:
    """Cut out a window; boxes become tight around the masks that remain in it, zero where nothing remains."""
    boxes = box_ops.clip(targets.boxes - targets.boxes.new_tensor([x, y, x, y]), (height, width))
    masks: Masks | None = targets.masks
    if isinstance(masks, PolygonMasks):
        shifted = PolygonMasks(masks.vertices - np.array([x, y]), masks.polygon_starts, masks.instance_starts)
        masks = polygon_clip.clip(shifted, (height, width))
        boxes = torch.from_numpy(polygon_clip.tight_boxes(masks))
    elif isinstance(masks, BitMasks):
        masks = BitMasks(masks.bitmaps[:, y : y + height, x : x + width])
        boxes = bitmap_boxes(masks)
    image = image[:, y : y + height, x : x + width].contiguous()  # a view would keep the whole image alive
    return image, replace(targets, boxes=boxes, masks=masks, size=(height, width))


def bitmap_boxes(masks: BitMasks) -> Tensor:
    """(N, 4) float64 XYXY around the set pixels, the far border one past the last pixel; zero where none is set."""
    columns, rows = masks.bitmaps.any(dim=1), masks.bitmaps.any(dim=2)
    sides = []
    for present in (columns, rows):
        length = present.shape[1]
        first = present.to(torch.uint8).argmax(dim=1)
        last = length - present.flip(1).to(torch.uint8).argmax(dim=1)
        sides.append((first, torch.where(present.any(dim=1), last, first)))
    (x1, x2), (y1, y2) = sides
    return torch.stack((x1, y1, x2, y2), dim=1).double()


def finish(targets: Targets) -> Targets:
    """Clip boxes to the image, drop instances without box area or without any mask, store boxes as float32."""
    boxes = box_ops.clip(targets.boxes, targets.size).float()
    keep = box_ops.nonempty(boxes)
    if isinstance(targets.masks, PolygonMasks):
        keep &= torch.from_numpy(np.diff(targets.masks.instance_starts) > 0)
    elif isinstance(targets.masks, BitMasks):
        keep &= targets.masks.bitmaps.flatten(1).any(dim=1)
    if bool(keep.all()):
        return replace(targets, boxes=boxes)
    masks = targets.masks[keep] if targets.masks is not None else None
    return replace(targets, boxes=boxes[keep], labels=targets.labels[keep], masks=masks)
