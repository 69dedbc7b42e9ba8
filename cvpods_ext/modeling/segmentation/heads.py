"""Decoders of segmentation: UPerNet (https://arxiv.org/abs/1807.10221) and the FCN head that helps it in training.

Shapes: N = crops, C = channels, K = classes, H, W = rows and columns of the finest map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.segmentation.layers import ConvBNReLU, resize_map

POOLED_SIDES = (1, 2, 3, 6)  # of the pyramid pooling module (PPM, https://arxiv.org/abs/1612.01105)
DROPOUT = 0.1  # of whole channels, before the classifier


class UPerHead(nn.Module):
    """Pyramid pooling on the coarsest map, a feature pyramid over all maps, and one classifier on their concatenation.

    `classifier` maps (N, C, H, W) to (N, K, H, W); None is a 1 x 1 convolution.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        *,
        dropout: float = DROPOUT,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv_seg = classifier or nn.Conv2d(channels, num_classes, 1)
        *finer, coarsest = in_channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvBNReLU(coarsest, channels, 1)) for side in POOLED_SIDES
        )
        self.bottleneck = ConvBNReLU(coarsest + len(POOLED_SIDES) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvBNReLU(width, channels, 1) for width in finer)
        self.fpn_convs = nn.ModuleList(ConvBNReLU(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = ConvBNReLU(len(in_channels) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, C_i, ., .), fine to coarse -> logits (N, K, H, W)."""
        return self.conv_seg(self.dropout(self.fuse(maps)))

    def fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, C_i, ., .), fine to coarse -> (N, C, H, W), what the classifier sees but for dropout."""
        merged = [lateral(map_) for lateral, map_ in zip(self.lateral_convs, maps, strict=False)]
        merged.append(self.pool(maps[-1]))
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + resize_map(merged[i + 1], (merged[i].shape[2], merged[i].shape[3]))
        levels = [conv(map_) for conv, map_ in zip(self.fpn_convs, merged, strict=False)]
        levels.append(merged[-1])  # pooling ends in a 3 x 3 convolution of its own
        finest = (levels[0].shape[2], levels[0].shape[3])
        return self.fpn_bottleneck(torch.cat([levels[0], *(resize_map(x, finest) for x in levels[1:])], dim=1))

    def pool(self, coarsest: Tensor) -> Tensor:
        """(N, C_last, h, w) -> (N, C, h, w): the map beside its means over 1, 2 x 2, 3 x 3 and 6 x 6 cells."""
        size = (coarsest.shape[2], coarsest.shape[3])
        pooled = [resize_map(branch(coarsest), size) for branch in self.psp_modules]
        return self.bottleneck(torch.cat([coarsest, *pooled], dim=1))


class FCNHead(nn.Module):
    """One 3 x 3 convolution and a classifier on a single map; trained beside the decoder, unused at test time."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.convs = nn.Sequential(ConvBNReLU(in_channels, channels, 3))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, map_: Tensor) -> Tensor:
        """(N, C_in, h, w) -> logits (N, K, h, w)."""
        return self.conv_seg(self.dropout(self.convs(map_)))


class CosineClassifier2d(nn.Module):
    """Pixel logits are scaled cosine similarities, so a class cannot win by a longer weight vector.

    As https://arxiv.org/abs/1804.09458 for box features; `weight` is (K, C).
    """

    def __init__(self, channels: int, num_classes: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, channels))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, H, W), each entry in [-scale, scale]."""
        weight = F.normalize(self.weight.float(), dim=1)[:, :, None, None]
        return self.scale * F.conv2d(F.normalize(x.float(), dim=1), weight)
