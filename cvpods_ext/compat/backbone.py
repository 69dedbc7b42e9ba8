"""Backbones as old folders build them: our ResNet pyramids, described by named shapes."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.resnet_settings import resnet_settings
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.resnet import ResNet, resnet
from cvpods_ext.modeling.layers import BatchNorm2d
from cvpods_ext.modeling.necks.fpn import FPN


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


class Backbone(nn.Module):
    """Base of every backbone; `forward` gives maps by level, a list or a dict by name.

    `channels` is the width of the maps, of all or of each, `strides` their strides.
    """

    channels: Any
    strides: tuple[int, ...]

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
    """ResNet or ResNeXt of `MODEL.RESNETS` under a pyramid p2 to p6. ConfigError for a depth that is none."""
    return ResNetPyramid(_resnet(cfg), cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM)


class ResNetBackbone(ResNet, Backbone):
    """A ResNet alone, with `linear` behind its pooled features where `MODEL.RESNETS.NUM_CLASSES` says how many.

    `forward` gives what `MODEL.RESNETS.OUT_FEATURES` names, (B, C, H, W) each, and "linear" (B, K).
    """

    out_features: tuple[str, ...] = ()

    def classify(self, num_classes: int) -> None:
        """Add the layer."""
        self.linear = nn.Linear(self.channels[-1], num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every stage by its name."""
        stages = zip(self.names, self.channels, self.strides, strict=True)
        return {name: ShapeSpec(channels=channels, stride=stride) for name, channels, stride in stages}

    def pooled(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C), what `linear` sees."""
        return ResNet.forward(self, images)[-1].mean(dim=(2, 3))

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """(B, 3, H, W) -> tensors by name."""
        maps = dict(zip(self.names, ResNet.forward(self, images), strict=True))
        found = {name: maps[name] for name in self.out_features if name in maps}
        if "linear" in self.out_features:
            found["linear"] = self.linear(maps[self.names[-1]].mean(dim=(2, 3)))
        return found


def build_resnet_backbone(cfg: AttributeDict, input_shape: ShapeSpec | None = None) -> Backbone:
    """ResNet or ResNeXt of `MODEL.RESNETS`. ConfigError for features that it does not have."""
    settings = cfg.MODEL.RESNETS
    network = _resnet(cfg, ResNetBackbone)
    network.out_features = tuple(settings.OUT_FEATURES)
    if settings.NUM_CLASSES:
        network.classify(settings.NUM_CLASSES)
    known = (*network.names, *(("linear",) if settings.NUM_CLASSES else ()))
    if strange := [name for name in network.out_features if name not in known]:
        raise ConfigError(
            f"MODEL.RESNETS.OUT_FEATURES has {strange[0]!r}, and this network has {', '.join(known)}"
            + ('; "linear" needs MODEL.RESNETS.NUM_CLASSES' if strange == ["linear"] else "")
        )
    return network


R = TypeVar("R", bound=ResNet)


def _resnet(cfg: AttributeDict, kind: type[R] = ResNet) -> R:
    """The ResNet of `MODEL.RESNETS` and `MODEL.BACKBONE.FREEZE_AT`. ConfigError for a depth that is none."""
    network = resnet(**resnet_settings(cfg), kind=kind)
    for norm in network.modules():
        if isinstance(norm, BatchNorm2d):  # those of FREEZE_AT are FrozenBN in cvpods, others move even where frozen
            norm.moves_when_frozen = norm.weight.requires_grad
    return network
