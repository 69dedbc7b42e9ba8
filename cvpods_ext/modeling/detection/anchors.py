"""Reference boxes of the region proposal network (Faster R-CNN, https://arxiv.org/abs/1506.01497, section 3.1.1).

Shapes: A = anchors per cell, L = pyramid levels, T = anchors of the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """(A, 4) boxes about the origin, size-major; ratio = height / width, area = size squared."""
    rows = []
    for size in sizes:
        for ratio in ratios:
            width = (size**2 / ratio) ** 0.5
            height = ratio * width
            rows.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(rows)


class CellAnchors(nn.Module):
    """A list of buffers named 0, 1, ...: the layout in which published files store the anchors of each level."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        for i, tensor in enumerate(tensors):
            self.register_buffer(str(i), tensor)

    def __len__(self) -> int:
        return len(self._buffers)

    def __getitem__(self, level: int) -> Tensor:
        return self.get_buffer(str(level))


class AnchorGenerator(nn.Module):
    """Anchors at every cell of every level, centred on the cell's corner (offset 0)."""

    def __init__(
        self,
        strides: Sequence[int],
        sizes: Sequence[float],
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        super().__init__()
        if len(strides) != len(sizes):
            raise ConfigError(
                f"model.anchor_sizes has {len(sizes)} sizes, this pyramid has {len(strides)} levels: give one for each"
            )
        self.strides = tuple(strides)
        self.per_cell = len(ratios)
        self.cell_anchors = CellAnchors([cell_anchors([size], ratios) for size in sizes])
        self._last: tuple[object, list[Tensor]] = (None, [])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """L maps -> L tensors (H * W * A, 4): rows, then columns, then anchors of the cell.

        The last answer is kept, since batches of one size often follow each other.
        """
        key = (features[0].device, tuple(tuple(map_.shape[-2:]) for map_ in features))
        if self._last[0] != key:
            self._last = (key, [self._level(i, *map_.shape[-2:]) for i, map_ in enumerate(features)])
        return self._last[1]

    def _level(self, level: int, height: int, width: int) -> Tensor:
        base = self.cell_anchors[level]
        x = torch.arange(width, device=base.device, dtype=base.dtype) * self.strides[level]
        y = torch.arange(height, device=base.device, dtype=base.dtype) * self.strides[level]
        y, x = torch.meshgrid(y, x, indexing="ij")
        corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
        return (corners + base).reshape(-1, 4)
