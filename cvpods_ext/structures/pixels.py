"""Resizing of uint8 images and of label maps, pixel for pixel as OpenCV does it.

Published segmentation models were trained and tested on images that OpenCV had resized. Its bilinear filter does not
blur before it shrinks, and works with weights of 11 bits; both show in the pixels.
Shapes: H, W = rows and columns before, h, w = after.
"""

from __future__ import annotations

import torch
from torch import Tensor

Size = tuple[int, int]
_BITS = 11  # of an interpolation weight


def keep_ratio_size(size: Size, *, short: int, long: int | None = None) -> Size:
    """The (height, width) whose shorter side is `short`, unless the longer would exceed `long`; rounded half up."""
    factor = short / min(size)
    if long is not None:
        factor = min(long / max(size), factor)
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def resize_bilinear(image: Tensor, size: Size) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, h, w)."""
    if tuple(image.shape[1:]) == size:
        return image
    left, right, share = _neighbours(image.shape[2], size[1], image.device, clamp_weights=True)
    pixels = image.int()
    columns = pixels[:, :, left] * share[0] + pixels[:, :, right] * share[1] >> 4
    # The last two bits of each product are dropped before the sum, so the order of these steps matters.
    above, below, share = _neighbours(image.shape[1], size[0], image.device, clamp_weights=False)
    rows = (columns[:, above] * share[0][:, None] >> 16) + (columns[:, below] * share[1][:, None] >> 16)
    return ((rows + 2) >> 2).to(torch.uint8)


def _neighbours(length: int, new: int, device: torch.device, *, clamp_weights: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of `new` centres the positions before and after it, (new,) each, and their weights (2, new) in 2048ths.

    Beyond the border both are the border pixel; with `clamp_weights` the first of them then has the whole weight.
    """
    centre = ((torch.arange(new, dtype=torch.float64, device=device) + 0.5) * _step(length, new) - 0.5).float()
    before = centre.floor()
    after = centre - before
    if clamp_weights:
        after = torch.where((before < 0) | (before >= length - 1), 0.0, after)
    shares = torch.stack((1 - after, after)) * (1 << _BITS)
    index = before.long()
    return index.clamp(0, length - 1), (index + 1).clamp(0, length - 1), shares.round().int()


def _step(old: int, new: int) -> float:
    """Distance of new pixels in old ones; two divisions, since the last bit decides where a corner lies on a border."""
    return 1 / (new / old)


def resize_nearest(labels: Tensor, size: Size) -> Tensor:
    """(H, W) -> (h, w): the label whose pixel holds the new pixel's upper left corner."""
    rows, columns = (
        (torch.arange(new, dtype=torch.float64, device=labels.device) * _step(old, new)).long().clamp(max=old - 1)
        for old, new in zip(labels.shape, size, strict=True)
    )
    return labels[rows[:, None], columns]
