"""Boxes as offsets from reference boxes, the targets of box regression (R-CNN, https://arxiv.org/abs/1311.2524, C).

Shapes: ... = any leading dimensions, which broadcast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)


def centres_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(..., 4) XYXY -> centre x, centre y, width, height, each (...)."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height


@dataclass(frozen=True)
class BoxCoder:
    """Deltas are (centre shift / side, log side ratio), multiplied by `weights` (x, y, width, height)."""

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def encode(self, source: Tensor, target: Tensor) -> Tensor:
        """Deltas (..., 4) that turn the `source` boxes into the `target` boxes; sources have positive sides."""
        x, y, width, height = centres_and_sides(source)
        to_x, to_y, to_width, to_height = centres_and_sides(target)
        wx, wy, ww, wh = self.weights
        return torch.stack(
            (
                wx * (to_x - x) / width,
                wy * (to_y - y) / height,
                ww * torch.log(to_width / width),
                wh * torch.log(to_height / height),
            ),
            dim=-1,
        )

    def decode(self, deltas: Tensor, source: Tensor) -> Tensor:
        """Boxes (..., 4); log ratios are limited to ln(1000 / 16) from above so that exp cannot overflow."""
        x, y, width, height = centres_and_sides(source)
        dx, dy, dw, dh = deltas.float().unbind(dim=-1)
        wx, wy, ww, wh = self.weights
        x, y = dx / wx * width + x, dy / wy * height + y
        half_width = 0.5 * (torch.exp((dw / ww).clamp(max=MAX_LOG_SCALE)) * width)
        half_height = 0.5 * (torch.exp((dh / wh).clamp(max=MAX_LOG_SCALE)) * height)
        return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), dim=-1)
