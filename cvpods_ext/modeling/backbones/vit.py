"""Plain vision transformers for detection (ViTDet, https://arxiv.org/abs/2203.16527): parts, and the ViT of MAE.

Most blocks attend within windows, a few over the whole map; tokens keep their place on a map, without class token.
Shapes: B = images, H, W = rows and columns of tokens, N = tokens that attend to each other, C = width, D = head width,
P = patch side in pixels, S = window side in tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cvpods_ext.errors import ConfigError, DataError

NORM_EPS = 1e-6


class PatchEmbed(nn.Module):
    """One token per patch of P x P pixels."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H * P, W * P) -> (B, H, W, C)."""
        return self.proj(images).permute(0, 2, 3, 1)


def resize_positions(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Position table (1, 1 + G * G, C) -> (1, *size, C); row 0 belongs to the class token and is left out.

    Bicubic without antialiasing; a G x G map gets the table as it is.
    """
    side = math.isqrt(table.shape[1] - 1)
    grid = table[:, 1:].unflatten(1, (side, side))
    if size == (side, side):
        return grid
    resized = F.interpolate(grid.permute(0, 3, 1, 2), size=size, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def to_windows(tokens: Tensor, side: int) -> Tensor:
    """(B, H, W, C) -> (B * windows, S, S, C), rows of windows first; the map is padded with zeros right and below.

    Padding is not masked: it attends and is attended to, as in the published models.
    """
    height, width = tokens.shape[1:3]
    tokens = F.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
    batch, height, width, channels = tokens.shape
    tokens = tokens.view(batch, height // side, side, width // side, side, channels)
    return tokens.transpose(2, 3).reshape(-1, side, side, channels)


def from_windows(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of `to_windows` for maps of `size` = (H, W): padding is cut off."""
    side, channels = windows.shape[2:]
    rows, columns = -(-size[0] // side), -(-size[1] // side)
    tokens = windows.view(-1, rows, columns, side, side, channels).transpose(2, 3)
    return tokens.reshape(-1, rows * side, columns * side, channels)[:, : size[0], : size[1]]


class Block(nn.Module):
    """Attention and MLP, each normalised before and added after; only the attention sees windows.

    `window` is their side in tokens, 0 attends over the whole map. `drop_path` is the chance that an image skips a
    branch in training.
    """

    def __init__(self, width: int, attention: nn.Module, mlp: nn.Module, *, window: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp
        self.window = window
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        tokens = tokens + self.drop_path(self._attend(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))

    def _attend(self, tokens: Tensor) -> Tensor:
        if not self.window:
            return self.attn(tokens)
        size = (tokens.shape[1], tokens.shape[2])
        return from_windows(self.attn(to_windows(tokens, self.window)), size)


class ViT(nn.Module):
    """Patches, positions and blocks; the output is one map, without a last norm.

    `image_side` is the square that every image is padded to. `shared` holds modules that several blocks use, under the
    names that published files give them. `recompute` saves memory in training: the activations inside a block are
    computed again for its gradients.
    """

    def __init__(
        self,
        width: int,
        blocks: Iterable[nn.Module],
        *,
        image_side: int,
        patch: int = 16,
        pretrained_grid: int = 14,
        shared: Mapping[str, nn.Module] | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + pretrained_grid**2, width))
        for name, module in (shared or {}).items():
            self.add_module(name, module)
        self.blocks = nn.ModuleList(blocks)
        self.channels, self.stride, self.image_side, self.recompute = width, patch, image_side, recompute
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Patches and positions, then each block (BEiT, https://arxiv.org/abs/2106.08254, appendix)."""
        first = [*self.parameters(recurse=False), *self.patch_embed.parameters()]
        return [first, *(list(block.parameters()) for block in self.blocks)]

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The square of the model; DataError for a larger image, which its position tables do not cover."""
        if max(height, width) > self.image_side:
            raise DataError(
                f"an image of {height} x {width} pixels reached a transformer built for {self.image_side}: "
                f"set data.test_size and data.test_max_size to {self.image_side} or less"
            )
        return self.image_side, self.image_side

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, image_side, image_side) -> (B, C, H, W), stride P."""
        tokens = self.patch_embed(images)
        tokens = tokens + resize_positions(self.pos_embed, (tokens.shape[1], tokens.shape[2]))
        for block in self.blocks:
            tokens = run_block(block, tokens, recompute=self.recompute)
        return tokens.permute(0, 3, 1, 2)


def run_block(block: nn.Module, tokens: Tensor, *, recompute: bool) -> Tensor:
    """The output of a block; with `recompute` its inner activations are computed again for the gradients."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, tokens, use_reentrant=False)
    return block(tokens)


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth grows linearly from 0 at the first block to `last` at the last one."""
    return torch.linspace(0, last, depth, device="cpu", dtype=torch.float64).tolist()


def check_blocks(global_blocks: Sequence[int], depth: int) -> None:
    """ConfigError for a block that does not exist: it would silently stay a windowed one."""
    if beyond := [i for i in global_blocks if not 0 <= i < depth]:
        raise ConfigError(f"global_blocks of net.py names {beyond}, but this transformer has blocks 0 to {depth - 1}")


class RelativeAttention(nn.Module):
    """Self-attention with a learned bias per row and per column distance, for maps of side x side tokens.

    The bias of a pair is q . row_table[row distance] + q . column_table[column distance]. Written as further entries
    of queries (those products, one per row and per column) and keys (which row and column it is), it needs no N x N
    table and runs in any attention kernel.
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, side, side, C) -> (B, side, side, C)."""
        rows = by_distance(self.rel_pos_h, tokens.shape[1], linear_resize)
        columns = by_distance(self.rel_pos_w, tokens.shape[2], linear_resize)
        return self.proj(attend_with_distances(self.qkv(tokens).unflatten(3, (3, self.heads, -1)), rows, columns))


def attend_with_distances(qkv: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention over a map with the bias q . rows[i, j] + q . columns[i, j] for each row and column of q and of k.

    qkv (B, H, W, 3, heads, D), rows (H, H, D), columns (W, W, D) -> (B, H, W, C).
    """
    query, key, value = qkv.permute(3, 0, 4, 1, 2, 5).unbind(0)  # (B, heads, H, W, D)
    batch, heads, height, width, depth = query.shape
    by_row = torch.einsum("bhyxd,yrd->bhyxr", query, rows.to(query.dtype))
    by_column = torch.einsum("bhyxd,xcd->bhyxc", query, columns.to(query.dtype))
    place = torch.cat(
        (
            torch.eye(height, dtype=key.dtype, device=key.device)[:, None].expand(-1, width, -1),
            torch.eye(width, dtype=key.dtype, device=key.device)[None].expand(height, -1, -1),
        ),
        dim=-1,
    ).expand(batch, heads, -1, -1, -1)
    query = torch.cat((query * depth**-0.5, by_row, by_column), dim=-1).flatten(2, 3)
    key = torch.cat((key, place), dim=-1).flatten(2, 3)
    # the kernels want one head width for all three
    padded = F.pad(value.flatten(2, 3), (0, height + width))
    attended = F.scaled_dot_product_attention(query, key, padded, scale=1.0)[..., :depth]
    return attended.transpose(1, 2).reshape(batch, height, width, heads * depth)


Resize = Callable[[Tensor, int], Tensor]


def linear_resize(table: Tensor, length: int) -> Tensor:
    """(L, D) -> (length, D) by linear interpolation."""
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T


def by_distance(table: Tensor, side: int, resize: Resize) -> Tensor:
    """(2 L - 1, D) -> (side, side, D): entry [i, j] is the table's row of distance i - j, resized where L != side."""
    if len(table) != 2 * side - 1:
        table = resize(table, 2 * side - 1)
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place[None] + side - 1]


def mae_vit(
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    *,
    image_side: int = 1024,
    window: int = 14,
    global_blocks: Sequence[int] = (2, 5, 8, 11),
    drop_path: float = 0.1,
    patch: int = 16,
    recompute: bool = False,
) -> ViT:
    """The ViT that masked autoencoders pre-train, ViT-B by default, with parameter names of detectron2's ViTDet."""
    check_blocks(global_blocks, depth)
    blocks = [
        Block(
            width,
            RelativeAttention(width, heads, image_side // patch if i in global_blocks else window),
            Mlp(width, 4 * width),
            window=0 if i in global_blocks else window,
            drop_path=rate,
        )
        for i, rate in enumerate(drop_path_rates(drop_path, depth))
    ]
    return ViT(width, blocks, image_side=image_side, patch=patch, recompute=recompute)
