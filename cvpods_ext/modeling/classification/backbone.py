"""Backbones of classification: an image becomes one feature vector.

Shapes: B = images, P = patch side in pixels, H, W = rows and columns of patches, N = H * W, C = width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.class_token import ClassTokenViT, eva02_blocks
from cvpods_ext.modeling.backbones.eva02 import RotaryTable, Size, size_of


class Chain(nn.ModuleList):
    """Blocks one after the other, as a module whose tables can be replaced for one call."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + N, C) -> (B, 1 + N, C)."""
        for block in self:
            tokens = block(tokens)
        return tokens


class MeanOfPatches(ClassTokenViT):
    """The mean of all patches behind the last block; the class token takes part in attention and is left out then.

    Images of another size than `image_side` get positions that are resized (bicubic, without antialiasing) and rotary
    tables of their own grid, as in the authors' code.
    """

    def __init__(self, width: int, blocks: Sequence[nn.Module], *, rotary_grid: int, **vit) -> None:
        super().__init__(width, blocks, **vit)
        self.blocks = Chain(self.blocks)
        self.rotary_grid = rotary_grid

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H * P, W * P) -> (B, C)."""
        return self.all_tokens(images)[:, 1:].mean(dim=1)

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, H * P, W * P) -> (B, C, H, W), the last block's patches in their places."""
        patches = self.all_tokens(images)[:, 1:]
        return patches.transpose(1, 2).unflatten(2, (images.shape[2] // self.stride, images.shape[3] // self.stride))

    def all_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H * P, W * P) -> (B, 1 + N, C), class token first, behind the last block."""
        grid = (images.shape[2] // self.stride, images.shape[3] // self.stride)
        tokens = self.tokens(images)
        if grid == (self.image_side // self.stride,) * 2:
            return self.blocks(tokens)
        table = RotaryTable(grid, self.head_width, self.rotary_grid).to(tokens.device)
        tables = {f"0.attn.rope.{name}": value for name, value in table.named_buffers()}
        return functional_call(self.blocks, tables, (tokens,))  # all blocks share the first one's tables

    @property
    def head_width(self) -> int:
        """Channels of an attention head."""
        return self.channels // self.blocks[0].attn.heads  # type: ignore[union-attr]


def eva02_features(
    size: str | Size,
    *,
    image_side: int,
    patch: int = 14,
    drop_path: float = 0.0,
    key_bias: bool = False,
) -> MeanOfPatches:
    """EVA-02 of a published size (Ti, S, B, L) or any other, for images of `image_side` pixels.

    `key_bias` adds the bias on keys that mmpretrain trains. ConfigError where side and patch do not fit.
    """
    size = size_of(size) if isinstance(size, str) else size
    if image_side % patch:
        raise ConfigError(f"data.image_side={image_side} is not a multiple of the patch side {patch}")
    rotary_grid = 16  # of pre-training, with patches of 14 pixels in 224
    rope = RotaryTable(image_side // patch, size.width // size.heads, rotary_grid)
    blocks = eva02_blocks(size, rope, drop_path, key_bias=key_bias)
    return MeanOfPatches(size.width, blocks, rotary_grid=rotary_grid, image_side=image_side, patch=patch, rope=rope)


class MeanOfMap(nn.Module):
    """The mean over the last map of a backbone that gives maps, such as a ResNet."""

    def __init__(self, bottom_up: nn.Module) -> None:
        super().__init__()
        self.bottom_up = bottom_up

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        return self.bottom_up(images)[-1].mean(dim=(2, 3))
