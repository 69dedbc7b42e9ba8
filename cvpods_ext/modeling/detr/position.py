"""Where tokens and boxes are: padding of every level, sine encodings, reference points.

Shapes: N = images, L = levels, H, W = rows and columns of a level, T = tokens of all levels, Q = queries, E = width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MapSize = tuple[int, int]  # rows, columns

_TEMPERATURE = 10_000.0


@dataclass(frozen=True)
class Levels:
    """Sizes of the L maps, and which part of each the images fill.

    `padding` holds a bool mask (N, H, W) per level, true outside the image. `filled` (N, L, 2) counts the columns and
    rows inside it, of which the first pixel decides.
    """

    sizes: tuple[MapSize, ...]
    padding: tuple[Tensor, ...]
    filled: Tensor

    @property
    def flat_padding(self) -> Tensor:
        """(N, T) bool, levels one after the other."""
        return torch.cat([mask.flatten(1) for mask in self.padding], dim=1)

    @property
    def valid_ratios(self) -> Tensor:
        """Filled shares of the columns and rows of each level, (N, L, 2); they differ a little between levels."""
        return self.filled / self.filled.new_tensor([(columns, rows) for rows, columns in self.sizes])

    def centres(self) -> Tensor:
        """x, y of every token in units of the filled part of its level: (N, T, 2), beyond 1 in the padding."""
        places = []
        for level, (rows, columns) in enumerate(self.sizes):
            y = torch.arange(rows, dtype=torch.float32, device=self.filled.device).repeat_interleave(columns)
            x = torch.arange(columns, dtype=torch.float32, device=self.filled.device).repeat(rows)
            places.append((torch.stack((x, y), dim=-1) + 0.5) / self.filled[:, level, None])
        return torch.cat(places, dim=1)

    def reference_points(self) -> Tensor:
        """Centre of every token on every level, x, y in [0, 1] of that level's padded map: (N, T, L, 2)."""
        return self.centres()[:, :, None] * self.valid_ratios[:, None]


def levels_of(image_sizes: Tensor, padded: MapSize, sizes: Sequence[MapSize]) -> Levels:
    """Padding of maps of `sizes` over a batch of `padded` = (rows, columns) pixels.

    image_sizes (N, 4) = width, height, width, height of the images in pixels. A cell stands for the pixel at
    floor(index * pixels / cells).
    """
    device = image_sizes.device
    filled_columns = torch.arange(padded[1], device=device) < image_sizes[:, 0, None]
    filled_rows = torch.arange(padded[0], device=device) < image_sizes[:, 1, None]
    padding, filled = [], []
    for rows, columns in sizes:
        down, across = _nearest(filled_rows, rows), _nearest(filled_columns, columns)
        padding.append(~(down[:, :, None] & across[:, None]))
        filled.append(torch.stack((across.sum(dim=1), down.sum(dim=1)), dim=-1))
    return Levels(tuple(sizes), tuple(padding), torch.stack(filled, dim=1).float())


def _nearest(filled: Tensor, cells: int) -> Tensor:
    """(N, pixels) bool -> (N, cells)."""
    return F.interpolate(filled[:, None].float(), size=cells, mode="nearest")[:, 0].bool()


def sine_map(padding: Tensor, width: int) -> Tensor:
    """Sine encoding of the cells of a map (DETR, https://arxiv.org/abs/2005.12872): (N, H, W) -> (N, E, H, W).

    Positions run from 0 to 2 pi over the part that is no padding; the first half of the channels encodes y, the
    second x.
    """
    filled = (~padding).float()
    encoded = []
    for axis in (1, 2):
        count = filled.cumsum(dim=axis)
        last = count.narrow(axis, count.shape[axis] - 1, 1)
        encoded.append(_waves((count - 0.5) / (last + 1e-6), width // 2))
    return torch.cat(encoded, dim=-1).permute(0, 3, 1, 2)


def sine_of_boxes(boxes: Tensor, features: int) -> Tensor:
    """Sine encoding of boxes in [0, 1]: (N, Q, 4) centre and size -> (N, Q, 4 * features) in the order y, x, w, h."""
    return _waves(boxes[..., [1, 0, 2, 3]], features).flatten(-2)


def _waves(position: Tensor, features: int) -> Tensor:
    """(...) in turns -> (..., features): sine and cosine in turn, of frequencies from 1 to almost 1 / 10,000."""
    index = torch.arange(features, device=position.device)
    periods = _TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / features)
    angles = position[..., None] * (2 * math.pi) / periods
    return torch.stack((angles[..., ::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)
