"""Feature pyramid network (https://arxiv.org/abs/1612.03144): top-down sums, one width on all levels.

Shapes: B = images, C = pyramid channels, H, W = rows and columns of the padded image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.backbones.resnet import ResNet, narrow_resnet, resnet
from cvpods_ext.modeling.layers import Conv2d, init_xavier
from cvpods_ext.modeling.necks.pyramid import Pyramid


class FPN(Pyramid):
    """Levels p2, p3, ... of `channels` each, and one more that takes every second pixel of the last."""

    def __init__(self, bottom_up: ResNet, channels: int = 256, norm: str = "") -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.levels = tuple(range(2, 2 + len(bottom_up.channels)))
        for level, width in zip(self.levels, bottom_up.channels, strict=True):
            self.add_module(f"fpn_lateral{level}", Conv2d(width, channels, 1, norm=norm))
            self.add_module(f"fpn_output{level}", Conv2d(channels, channels, 3, norm=norm))
        for name, layer in self.named_children():
            if name.startswith("fpn_"):
                init_xavier(layer)
        self.channels = channels
        self.strides = (*bottom_up.strides, bottom_up.strides[-1] * 2)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The next size at which every level is exactly half of the one before, as the top-down sums need."""
        step = self.strides[-2]
        return -(-height // step) * step, -(-width // step) * step

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> p2, p3, ...: (B, C, H / strides[i], W / strides[i]), the last one rounded up."""
        maps = self.bottom_up(images)
        merged = None
        pyramid: list[Tensor] = []
        for level, bottom in zip(reversed(self.levels), reversed(maps), strict=True):
            lateral = self.get_submodule(f"fpn_lateral{level}")(bottom)
            if merged is not None:
                lateral = lateral.add_(F.interpolate(merged, scale_factor=2.0, mode="nearest"))
            merged = lateral
            pyramid.insert(0, self.get_submodule(f"fpn_output{level}")(merged))
        pyramid.append(pyramid[-1][:, :, ::2, ::2])
        return pyramid


def resnet_fpn(
    depth: int = 50,
    *,
    norm: str = "FrozenBN",
    groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = True,
    freeze_at: int = 2,
    zero_residual: bool = False,
    channels: int = 256,
) -> FPN:
    """ResNet or ResNeXt of published shape under a pyramid p2 to p6."""
    bottom_up = resnet(
        depth,
        norm=norm,
        groups=groups,
        width_per_group=width_per_group,
        stride_in_1x1=stride_in_1x1,
        freeze_at=freeze_at,
        zero_residual=zero_residual,
    )
    return FPN(bottom_up, channels)


def narrow_resnet_fpn() -> FPN:
    """Five basic blocks of 32 to 128 channels with trainable batch norm, from scratch, under a 64-channel pyramid."""
    return FPN(narrow_resnet(), channels=64)
