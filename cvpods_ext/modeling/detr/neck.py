"""From the backbone's maps to maps of one width: one convolution per level, and coarser levels behind the last.

Shapes: N = images, E = width, H, W = rows and columns of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Mapping(nn.Module):
    """Convolution and group norm, without activation."""

    def __init__(self, in_channels: int, width: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel_size, stride=stride, padding=kernel_size // 2)
        self.norm = nn.GroupNorm(32, width)
        nn.init.xavier_uniform_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, map_: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, E, H / stride, W / stride)."""
        return self.norm(self.conv(map_))


class ChannelMapper(nn.Module):
    """Maps the backbone's last len(in_channels) maps to `width`; what is missing to `levels` are halvings of the raw
    last map.
    """

    def __init__(self, in_channels: Sequence[int], width: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Mapping(channels, width, 1) for channels in in_channels)
        inputs = [in_channels[-1]] + [width] * levels
        extra = levels - len(in_channels)
        if extra:
            self.extra_convs = nn.ModuleList(Mapping(channels, width, 3, stride=2) for channels in inputs[:extra])
        self.extra = extra

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps fine to coarse -> one (N, E, H, W) per level."""
        maps = maps[len(maps) - len(self.convs) :]
        mapped = [conv(map_) for conv, map_ in zip(self.convs, maps, strict=True)]
        coarser = maps[-1]
        for i in range(self.extra):
            coarser = self.extra_convs[i](coarser)
            mapped.append(coarser)
        return mapped
