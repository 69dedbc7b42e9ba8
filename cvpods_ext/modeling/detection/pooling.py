"""RoIAlign over a pyramid (Mask R-CNN, https://arxiv.org/abs/1703.06870; level rule of FPN, equation 1).

Shapes: R = RoIs of the batch, B = images, C = channels, S = output cells per side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from cvpods_ext.modeling.detection.roi_align import roi_align_rows
from cvpods_ext.structures import boxes as box_ops

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a box of ImageNet's usual size is read from p4


class RoIPooler:
    """Cuts every box out of the level that suits its size: sides below 112 pixels from p2, 448 and more from p5."""

    def __init__(self, size: int, strides: Sequence[int]) -> None:
        self.size = size
        self.strides = tuple(strides)
        self.lowest = self.strides[0].bit_length() - 1

    def levels(self, boxes: Tensor) -> Tensor:
        """(R, 4) -> (R,) position of the level in `strides`."""
        side = box_ops.area(boxes).clamp(min=0).sqrt()
        level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE + 1e-8)) - self.lowest
        return level.clamp(0, len(self.strides) - 1).to(torch.int64)

    def __call__(self, features: Sequence[Tensor], boxes: Tensor, image_of_roi: Tensor) -> Tensor:
        """Maps (B, C, H, W) per level, boxes (R, 4) in image pixels, image_of_roi (R,) -> (R, C, S, S), same order."""
        levels = self.levels(boxes)
        if not boxes.is_cuda:
            return roi_align_rows(features[: len(self.strides)], self.strides, boxes, image_of_roi, levels, self.size)
        rois = torch.cat((image_of_roi[:, None].to(boxes.dtype), boxes), dim=1)
        return roi_align_without_waiting(features[: len(self.strides)], self.strides, rois, levels, self.size)


def roi_align_without_waiting(
    features: Sequence[Tensor], strides: Sequence[int], rois: Tensor, levels: Tensor, size: int
) -> Tensor:
    """Sum over the levels; the RoIs (R, 5) of other levels are given without extent, so that they add zeros.

    Sorting the RoIs by level would need the number of each, and to learn it the host would wait for the device.
    """
    pooled = None
    for i, (map_, stride) in enumerate(zip(features, strides, strict=True)):
        here = torch.where((levels == i)[:, None], rois, 0.0)
        part = roi_align(map_, here, size, 1 / stride, sampling_ratio=0, aligned=True)
        pooled = part if pooled is None else pooled.add_(part)
    assert pooled is not None, "a pyramid has levels"
    return pooled
