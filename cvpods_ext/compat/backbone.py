"""Backbones as old folders build them: our ResNet pyramids, described by named shapes."""

from __future__ import annotations

from typing import Any, NamedTuple

from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.resnet import resnet
from cvpods_ext.modeling.necks.fpn import FPN
from cvpods_ext.modeling.necks.pyramid import Pyramid


class _Shape(NamedTuple):
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class ShapeSpec(_Shape):
    """Channels, height, width and stride of a map, each None where unknown; keyword arguments only."""

    __slots__ = ()

    def __new__(
        cls,
        *,
        channels: int | None = None,
        height: int | None = None,
        width: int | None = None,
        stride: int | None = None,
    ) -> ShapeSpec:
        """A record of what is given."""
        return super().__new__(cls, channels, height, width, stride)


class Backbone(Pyramid):
    """Base of every backbone; `forward` gives maps by level, a list or a dict by name."""

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of it; 0 is no requirement."""
        return 0

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The next size that `size_divisibility` divides."""
        step = max(1, self.size_divisibility)
        return -(-height // step) * step, -(-width // step) * step

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every level by its name."""
        levels = [stride.bit_length() - 1 for stride in self.strides]
        return {
            f"p{level}": ShapeSpec(channels=self.channels, stride=stride)
            for level, stride in zip(levels, self.strides, strict=True)
        }


class ResNetPyramid(FPN, Backbone):
    """Our pyramid under the interface of old folders."""

    @property
    def size_divisibility(self) -> int:
        """The stride of the last level that the top-down sums reach."""
        return self.strides[-2]


def build_resnet_fpn_backbone(cfg: AttributeDict, input_shape: ShapeSpec | None = None) -> Backbone:
    """ResNet or ResNeXt of `MODEL.RESNETS` under a pyramid p2 to p6. ConfigError for a depth or norm that is none."""
    return ResNetPyramid(resnet(**resnet_settings(cfg)), cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM)


def resnet_settings(cfg: AttributeDict) -> dict[str, Any]:
    """Arguments of our `resnet` as `MODEL.RESNETS` and `MODEL.BACKBONE.FREEZE_AT` have them."""
    settings = cfg.MODEL.RESNETS
    if settings.NORM not in ("", "FrozenBN", "BN", "GN"):
        raise ConfigError(
            f"MODEL.RESNETS.NORM is {settings.NORM!r}; the backbones here have '', 'FrozenBN', 'BN' or 'GN'"
        )
    return dict(
        depth=settings.DEPTH,
        norm=settings.NORM,
        groups=settings.NUM_GROUPS,
        width_per_group=settings.WIDTH_PER_GROUP,
        stride_in_1x1=settings.STRIDE_IN_1X1,
        freeze_at=max(0, cfg.MODEL.BACKBONE.FREEZE_AT),
    )
