"""EVA-02 for segmentation: maps of four scales from four of its blocks, with a class token and attention over all.

Shapes: B = crops, S = side of a crop in pixels, P = patch side, G = S / P, N = G * G patches, C = width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.class_token import ClassTokenViT, eva02_blocks
from cvpods_ext.modeling.backbones.eva02 import RotaryTable, Size, size_of
from cvpods_ext.modeling.backbones.vit import run_block
from cvpods_ext.modeling.segmentation.layers import SyncBatchNorm2d

TAPS = {"B": (3, 5, 7, 11), "L": (7, 11, 15, 23)}  # blocks whose outputs are used, as published


class MultiScaleViT(ClassTokenViT):
    """A plain ViT whose blocks `taps` each give one map, brought to strides P / 4, P / 2, P and 2 P.

    The maps are taken behind a block as they are, without a norm and without the class token. Takes crops of
    `image_side` only, since its position tables have that size.
    """

    def __init__(self, width: int, blocks: Sequence[nn.Module], *, taps: Sequence[int], **vit) -> None:
        super().__init__(width, blocks, **vit)
        self.taps = tuple(taps)
        # The names are those of the published files.
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            SyncBatchNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, stride=2),
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2))
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(2)

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1 + N, C): class token and patches with their positions, before the first block."""
        height, width, side = *images.shape[2:], self.image_side
        if (height, width) != (side, side):
            raise ConfigError(
                f"crops of {height} x {width} pixels reached a transformer built for {side} x {side}: "
                "give data.crop_side and the transformer the same number"
            )
        return super().tokens(images)

    def forward(self, images: Tensor) -> list[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B, 3, S, S) -> four maps (B, C, ., .) of sides 4 G, 2 G, G and G / 2."""
        tokens, maps = self.tokens(images), []
        grid = self.image_side // self.stride
        for i, block in enumerate(self.blocks):
            tokens = run_block(block, tokens, recompute=self.recompute)
            if i in self.taps:
                maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, (grid, grid)))
        scales = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        return [scale(map_) for scale, map_ in zip(scales, maps, strict=True)]


def eva02_multi_scale(
    size: str | Size,
    *,
    taps: Sequence[int] = (),
    crop_side: int = 512,
    patch: int = 16,
    rotary_grid: int = 16,
    drop_path: float = 0.0,
    recompute: bool = False,
) -> MultiScaleViT:
    """EVA-02 of a published size (B, L) or any other, for crops of `crop_side` pixels.

    `taps` are the four blocks whose outputs are used, () those published for the size. `rotary_grid` is the span of
    the rotary positions. ConfigError for sizes, taps and crops that do not fit together.
    """
    if isinstance(size, str):
        taps, size = taps or TAPS.get(size, ()), size_of(size)
    if len(taps) != 4 or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < size.depth:
        raise ConfigError(f"taps={tuple(taps)} must be four ascending blocks from 0 to {size.depth - 1}")
    if crop_side % (2 * patch):
        raise ConfigError(f"crop_side={crop_side} is not a multiple of {2 * patch}, the stride of the coarsest map")
    rope = RotaryTable(crop_side // patch, size.width // size.heads, rotary_grid)
    blocks = eva02_blocks(size, rope, drop_path)
    return MultiScaleViT(
        size.width, blocks, taps=taps, image_side=crop_side, patch=patch, rope=rope, recompute=recompute
    )
