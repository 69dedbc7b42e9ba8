"""EVA (https://arxiv.org/abs/2211.07636) as a detection backbone, parameter names of its authors.

A ViT of one billion parameters with biases by row and column distance, as in ViTDet, and no bias on the keys.
Shapes: B = images or windows, H, W = rows and columns of tokens, C = width, D = head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import make_interp_spline
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from cvpods_ext.modeling.backbones.vit import (
    Block,
    Resize,
    ViT,
    attend_with_distances,
    by_distance,
    check_blocks,
    drop_path_rates,
    linear_resize,
)

_GROWTH = 1.0903078  # of the distance between known positions, from the centre outwards


def spline_resize(table: Tensor, length: int) -> Tensor:
    """(L, D) -> (length, D) by a cubic spline, as BEiT's authors do for larger images than trained on.

    The known rows lie at 0, 1, 1 + q, 1 + q + q^2, ... on both sides of the centre, the wanted ones a step of 1 apart.
    """
    return torch.from_numpy(_spline(len(table), length)).to(table) @ table


@lru_cache(maxsize=8)
def _spline(known: int, wanted: int) -> np.ndarray:
    """The interpolation as a matrix (wanted, known), since it is linear in the table."""
    outwards = np.cumsum(_GROWTH ** np.arange(known // 2))
    positions = np.concatenate((-outwards[::-1], [0.0], outwards))
    return make_interp_spline(positions, np.eye(known), k=3)(np.arange(wanted) - (wanted - 1) / 2)


class Attention(nn.Module):
    """Self-attention with biases by distance; `resize` fits their tables to maps of another size than `side`."""

    def __init__(self, width: int, heads: int, side: int, resize: Resize) -> None:
        super().__init__()
        self.heads, self.resize = heads, resize
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(tokens, self.qkv.weight, bias).unflatten(3, (3, self.heads, -1))
        rows = by_distance(self.rel_pos_h, tokens.shape[1], self.resize)
        columns = by_distance(self.rel_pos_w, tokens.shape[2], self.resize)
        return self.proj(attend_with_distances(qkv, rows, columns))


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width, number of blocks and heads, width of the MLP, and side of the pre-trained position table."""

    width: int = 1408
    depth: int = 40
    heads: int = 16
    hidden: int = 6144
    pretrained_grid: int = 14


GIANT = Size()


def eva01(
    size: Size = GIANT,
    *,
    image_side: int = 1280,
    table_side: int = 1280,
    window: int = 16,
    global_blocks: Sequence[int] = tuple(range(3, 40, 4)),
    drop_path: float = 0.6,
    resize: Resize = linear_resize,
    recompute: bool = True,
) -> ViT:
    """EVA for images padded to squares of `image_side` pixels; its patch embedding is never trained.

    The tables of the global blocks are those of squares of `table_side` pixels: a trained model is tested on larger
    squares with the tables that it has, resized by `resize`.
    """
    check_blocks(global_blocks, size.depth)
    attention = partial(Attention, size.width, size.heads, resize=resize)
    blocks = [
        Block(
            size.width,
            attention(table_side // 16 if i in global_blocks else window),
            Mlp(size.width, size.hidden),
            window=0 if i in global_blocks else window,
            drop_path=rate,
        )
        for i, rate in enumerate(drop_path_rates(drop_path, size.depth))
    ]
    net = ViT(size.width, blocks, image_side=image_side, pretrained_grid=size.pretrained_grid, recompute=recompute)
    net.patch_embed.proj.requires_grad_(False)
    return net
