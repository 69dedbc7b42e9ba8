"""What every backbone of a two-stage detector offers to the parts behind it.

Shapes: B = images, C = pyramid channels, H, W = rows and columns of the padded image.
"""

from __future__ import annotations

from torch import Tensor, nn


class Pyramid(nn.Module):
    """Maps of one width, fine to coarse, each level half as large as the one before; proposals read all, RoIs all but
    the last.
    """

    channels: int
    strides: tuple[int, ...]

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The size to which a batch of images of at most (height, width) is padded."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one map per level, (B, C, H / strides[i], W / strides[i])."""
        raise NotImplementedError
