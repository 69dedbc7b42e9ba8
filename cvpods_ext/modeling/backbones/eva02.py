"""EVA-02 (https://arxiv.org/abs/2303.11331) as a detection backbone, parameter names of its authors.

A ViT with rotary positions, gated MLPs with a norm inside, and no bias on the keys.
Shapes: B = images or windows, H, W = rows and columns of tokens, N = H * W, C = width, D = head width, F = MLP width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.vit import NORM_EPS, Block, ViT, check_blocks, drop_path_rates


class RotaryTable(nn.Module):
    """Rotation angles of every cell of a map (RoPE, https://arxiv.org/abs/2104.09864, in two dimensions).

    Row angles turn the first half of a head, column angles the second, adjacent entries in pairs. Positions are
    stretched so that the map spans the `pretrained_grid` whatever its `side`, one number or (rows, columns).
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, side: int | tuple[int, int], head_width: int, pretrained_grid: int = 16) -> None:
        super().__init__()
        height, width = (side, side) if isinstance(side, int) else side
        half = head_width // 2
        rows = _angles(height, half, pretrained_grid)[:, None].expand(height, width, half)
        columns = _angles(width, half, pretrained_grid)[None].expand(height, width, half)
        angles = torch.cat((rows, columns), dim=-1).reshape(height * width, head_width)
        # Published files hold the tables, once more under every block; see `weights` for what is done with them.
        self.register_buffer("freqs_cos", angles.cos())
        self.register_buffer("freqs_sin", angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        """Turn queries or keys (B, heads, M + N, D), the last N in row-major order; the result is float32.

        The M tokens before them, such as a class token, have no place on the map and stay as they are.
        """
        if (placeless := x.shape[-2] - len(self.freqs_cos)) > 0:
            return torch.cat((x[..., :placeless, :].float(), self(x[..., placeless:, :])), dim=-2)
        turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
        return x * self.freqs_cos + turned * self.freqs_sin


def _angles(side: int, half: int, pretrained_grid: int) -> Tensor:
    """(side, half): of each position along one side."""
    frequencies = 10_000.0 ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)
    positions = torch.arange(side, dtype=torch.float32) / side * pretrained_grid
    return (positions[:, None] * frequencies).repeat_interleave(2, dim=1)


class Attention(nn.Module):
    """Self-attention of rotated queries and keys; queries and values have a bias, keys have none."""

    def __init__(self, width: int, heads: int, rope: RotaryTable) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.rope = rope
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) or (B, N, C) -> the same."""
        x = tokens.flatten(1, -2)
        query = self._split(F.linear(x, self.q_proj.weight, self.q_bias))
        key = self._split(self.k_proj(x))
        value = self._split(F.linear(x, self.v_proj.weight, self.v_bias))
        query, key = self.rope(query).to(value.dtype), self.rope(key).to(value.dtype)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(tokens.shape))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, D)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class KeyBiasAttention(Attention):
    """With a bias on keys as well, as mmpretrain trains it; files that it converted have zeros there."""

    def __init__(self, width: int, heads: int, rope: RotaryTable) -> None:
        super().__init__(width, heads, rope)
        self.k_proj = nn.Linear(width, width)


class SwiGLU(nn.Module):
    """Gated MLP (https://arxiv.org/abs/2002.05202); B and L normalise the hidden layer (sub-LN), Ti and S do not."""

    def __init__(self, width: int, hidden: int, *, sub_norm: bool = True) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(width, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=NORM_EPS) if sub_norm else nn.Identity()
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


@dataclass(frozen=True)
class Size:
    """Width, number of blocks and heads, and whether the MLP normalises its hidden layer."""

    width: int
    depth: int
    heads: int
    sub_norm: bool = True


SIZES = {
    "Ti": Size(192, 12, 3, sub_norm=False),
    "S": Size(384, 12, 6, sub_norm=False),
    "B": Size(768, 12, 12),
    "L": Size(1024, 24, 16),
}


def size_of(name: str) -> Size:
    """A published size of EVA-02; ConfigError for another name."""
    if name not in SIZES:
        raise ConfigError(f"EVA-02 size {name!r} does not exist: choose one of {', '.join(SIZES)}")
    return SIZES[name]


def eva02(
    size: str,
    *,
    image_side: int = 1024,
    window: int = 16,
    global_blocks: Sequence[int],
    drop_path: float = 0.1,
    recompute: bool = False,
) -> ViT:
    """An EVA-02 of published size (Ti, S, B or L) for images padded to squares of `image_side` pixels."""
    return eva02_of(
        size_of(size),
        image_side=image_side,
        window=window,
        global_blocks=global_blocks,
        drop_path=drop_path,
        recompute=recompute,
    )


def eva02_of(
    size: Size,
    *,
    image_side: int,
    window: int,
    global_blocks: Sequence[int],
    drop_path: float = 0.0,
    patch: int = 16,
    pretrained_grid: int = 14,
    rotary_grid: int = 16,
    recompute: bool = False,
) -> ViT:
    """An EVA-02 of any size.

    `global_blocks` attend over the whole map, the others within windows of `window` tokens. `pretrained_grid` is the
    side of the position table, `rotary_grid` the span of the rotary positions (pre-training had patches of 14 there).
    """
    if image_side % patch:
        raise ConfigError(f"data.lsj_side={image_side} is not a multiple of the patch side {patch}")
    check_blocks(global_blocks, size.depth)
    head_width = size.width // size.heads
    in_windows = RotaryTable(window, head_width, rotary_grid)
    overall = RotaryTable(image_side // patch, head_width, rotary_grid)
    blocks = [
        Block(
            size.width,
            Attention(size.width, size.heads, overall if i in global_blocks else in_windows),
            SwiGLU(size.width, int(size.width * (4 * 2 / 3)), sub_norm=size.sub_norm),
            window=0 if i in global_blocks else window,
            drop_path=rate,
        )
        for i, rate in enumerate(drop_path_rates(drop_path, size.depth))
    ]
    return ViT(
        size.width,
        blocks,
        image_side=image_side,
        patch=patch,
        pretrained_grid=pretrained_grid,
        shared={"rope_win": in_windows, "rope_glb": overall},
        recompute=recompute,
    )
