"""Simple feature pyramid of ViTDet (https://arxiv.org/abs/2203.16527, section 3): every level from the last map alone.

Shapes: B = images, C = pyramid channels, D = width of the transformer, H, W = rows and columns of the padded image.
"""

from __future__ import annotations

from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.vit import ViT
from cvpods_ext.modeling.layers import Conv2d, LayerNorm2d
from cvpods_ext.modeling.necks.pyramid import Pyramid


class SimplePyramid(Pyramid):
    """Levels p2 to p5 by up- or downsampling the map of stride 16, and p6 that takes every second pixel of p5.

    `finest` is the first level, 2 or 3.
    """

    def __init__(self, net: ViT, channels: int = 256, finest: int = 2) -> None:
        super().__init__()
        assert net.stride == 16, f"the levels are laid out for a map of stride 16, not {net.stride}"
        if net.image_side % 32:
            raise ConfigError(
                f"data.lsj_side={net.image_side} is not a multiple of 32, the stride of the pyramid's level p5"
            )
        self.net = net
        width = net.channels
        if finest == 2:
            self.simfp_2 = nn.Sequential(
                nn.ConvTranspose2d(width, width // 2, 2, stride=2),
                LayerNorm2d(width // 2),
                nn.GELU(),
                nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
                *_output(width // 4, channels),
            )
        self.simfp_3 = nn.Sequential(nn.ConvTranspose2d(width, width // 2, 2, stride=2), *_output(width // 2, channels))
        self.simfp_4 = nn.Sequential(*_output(width, channels))
        self.simfp_5 = nn.Sequential(nn.MaxPool2d(2), *_output(width, channels))
        self.channels = channels
        self.levels = tuple(range(finest, 6))
        self.strides = tuple(2**level for level in range(finest, 7))

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The square of the transformer."""
        return self.net.padded_size(height, width)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> p2 to p6: (B, C, H / strides[i], W / strides[i]), the last one rounded up."""
        map_ = self.net(images)
        pyramid = [self.get_submodule(f"simfp_{level}")(map_) for level in self.levels]
        return [*pyramid, pyramid[-1][:, :, ::2, ::2]]


def _output(in_channels: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """The two convolutions that end every level."""
    return Conv2d(in_channels, channels, 1, norm="LN"), Conv2d(channels, channels, 3, norm="LN")
