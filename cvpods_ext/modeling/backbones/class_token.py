"""EVA-02 (https://arxiv.org/abs/2303.11331) as it was pre-trained: a class token, and attention over the whole image.

Shapes: B = images, P = patch side in pixels, H, W = rows and columns of patches, N = H * W, C = width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.backbones.eva02 import Attention, KeyBiasAttention, RotaryTable, Size, SwiGLU
from cvpods_ext.modeling.backbones.vit import Block, ViT, drop_path_rates, resize_positions


class ClassTokenViT(ViT):
    """A plain ViT with a class token in front of the patches; its position table has the size of the input."""

    def __init__(
        self,
        width: int,
        blocks: Iterable[nn.Module],
        *,
        image_side: int,
        patch: int,
        rope: RotaryTable,
        recompute: bool = False,
    ) -> None:
        grid, shared = image_side // patch, {"rope": rope}
        super().__init__(
            width,
            blocks,
            image_side=image_side,
            patch=patch,
            pretrained_grid=grid,
            shared=shared,
            recompute=recompute,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H * P, W * P) -> (B, 1 + N, C): class token and patches with their positions, before the blocks."""
        patches = self.patch_embed(images)
        positions = resize_positions(self.pos_embed, (patches.shape[1], patches.shape[2]))
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        return torch.cat((first, (patches + positions).flatten(1, 2)), dim=1)


def eva02_blocks(size: Size, rope: RotaryTable, drop_path: float, *, key_bias: bool = False) -> list[Block]:
    """Blocks that attend over the whole map; `drop_path` is the rate of the last one."""
    attention = KeyBiasAttention if key_bias else Attention
    return [
        Block(
            size.width,
            attention(size.width, size.heads, rope),
            SwiGLU(size.width, int(size.width * (4 * 2 / 3)), sub_norm=size.sub_norm),
            window=0,
            drop_path=rate,
        )
        for rate in drop_path_rates(drop_path, size.depth)
    ]
