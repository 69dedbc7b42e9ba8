"""ResNet (https://arxiv.org/abs/1512.03385) and ResNeXt (https://arxiv.org/abs/1611.05431), named as in detectron2.

Shapes: B = images, C = channels, H, W = rows and columns of the padded image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.layers import Conv2d, init_msra

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class Stage:
    """How many blocks, how wide their output, and how wide the 3x3 convolution inside a bottleneck."""

    blocks: int
    channels: int
    width: int


class Stem(nn.Module):
    """7x7 convolution and max pool, each of stride 2."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, channels, 7, stride=2, norm=norm, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / 4, W / 4)."""
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


def _shortcut(in_channels: int, channels: int, stride: int, norm: str) -> Conv2d | None:
    """A 1x1 convolution where a block changes the shape of its input, else nothing."""
    if in_channels == channels and stride == 1:
        return None
    return Conv2d(in_channels, channels, 1, stride=stride, norm=norm)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (depths 18 and 34)."""

    def __init__(self, in_channels: int, stage: Stage, *, stride: int, norm: str) -> None:
        super().__init__()
        channels = stage.channels
        self.shortcut = _shortcut(in_channels, channels, stride, norm)
        self.conv1 = Conv2d(in_channels, channels, 3, stride=stride, norm=norm, relu=True)
        self.conv2 = Conv2d(channels, channels, 3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H / stride, W / stride)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv2(self.conv1(x)).add_(residual))


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in ResNeXt), 1x1 convolution beside a shortcut (depth 50 and more).

    The MSRA weights carry the stride in the first 1x1, torchvision's in the 3x3: weights of one kind load into the
    other without complaint and cost several AP.
    """

    def __init__(
        self, in_channels: int, stage: Stage, *, stride: int, norm: str, groups: int, stride_in_1x1: bool
    ) -> None:
        super().__init__()
        channels, width = stage.channels, stage.width
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _shortcut(in_channels, channels, stride, norm)
        self.conv1 = Conv2d(in_channels, width, 1, stride=first, norm=norm, relu=True)
        self.conv2 = Conv2d(width, width, 3, stride=second, groups=groups, norm=norm, relu=True)
        self.conv3 = Conv2d(width, channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H / stride, W / stride)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(self.conv2(self.conv1(x))).add_(residual))


class ResNet(nn.Module):
    """Stem and stages res2, res3, ... of any width; `resnet` builds the published ones.

    `freeze_at` counts the leading parts that are not trained: 1 is the stem, 2 the stem and res2, 0 none.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        stem_channels: int = 64,
        bottleneck: bool = True,
        norm: str = "FrozenBN",
        groups: int = 1,
        stride_in_1x1: bool = True,
        freeze_at: int = 2,
    ) -> None:
        super().__init__()
        self.stem = Stem(stem_channels, norm)
        channels = stem_channels
        self.names = tuple(f"res{i}" for i in range(2, 2 + len(stages)))
        for i, (name, stage) in enumerate(zip(self.names, stages, strict=True)):
            blocks = []
            for block in range(stage.blocks):
                stride = 2 if i > 0 and block == 0 else 1
                if bottleneck:
                    made = Bottleneck(
                        channels,
                        stage,
                        stride=stride,
                        norm=norm,
                        groups=groups,
                        stride_in_1x1=stride_in_1x1,
                    )
                else:
                    made = BasicBlock(channels, stage, stride=stride, norm=norm)
                blocks.append(made)
                channels = stage.channels
            self.add_module(name, nn.Sequential(*blocks))
        self.channels = tuple(stage.channels for stage in stages)
        self.strides = tuple(4 * 2**i for i in range(len(stages)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_msra(module)
        for part in [self.stem, *map(self.get_submodule, self.names)][:freeze_at]:
            part.requires_grad_(False)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Any size will do."""
        return height, width

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one map per stage, (B, channels[i], H / strides[i], W / strides[i])."""
        if not (images.is_cuda or torch.is_grad_enabled()):
            # a processor infers a fifth faster where the channels of a pixel lie together; training gains nothing
            images = images.contiguous(memory_format=torch.channels_last)
        x = self.stem(images)
        maps = []
        for name in self.names:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


R = TypeVar("R", bound=ResNet)


def resnet(
    depth: int = 50,
    *,
    norm: str = "FrozenBN",
    groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = True,
    freeze_at: int = 2,
    zero_residual: bool = False,
    kind: type[R] = ResNet,
) -> R:
    """A ResNet of published shape, of a subclass if `kind` is one.

    ResNeXt-101 32x8d is depth 101, groups 32, width_per_group 8, stride_in_1x1 off. `zero_residual` starts the last
    norm of every block at 0, so that a block starts as the identity (https://arxiv.org/abs/1706.02677, section 5.1).
    """
    if depth not in BLOCKS:
        raise ConfigError(f"ResNet depth {depth} does not exist: choose one of {', '.join(map(str, BLOCKS))}")
    bottleneck = depth >= 50
    stages = [
        Stage(blocks, (256 if bottleneck else 64) * 2**i, groups * width_per_group * 2**i)
        for i, blocks in enumerate(BLOCKS[depth])
    ]
    network = kind(
        stages,
        bottleneck=bottleneck,
        norm=norm,
        groups=groups,
        stride_in_1x1=stride_in_1x1,
        freeze_at=freeze_at,
    )
    if zero_residual:
        for block in network.modules():
            if isinstance(block, BasicBlock | Bottleneck):
                weight = getattr((block.conv3 if isinstance(block, Bottleneck) else block.conv2).norm, "weight", None)
                if weight is not None:  # a buffer of frozen norms
                    nn.init.zeros_(weight)
    return network


def narrow_resnet() -> ResNet:
    """Five basic blocks of 32 to 128 channels with trainable batch norm, for experiments on two CPU cores."""
    stages = (Stage(1, 32, 32), Stage(1, 64, 64), Stage(2, 96, 96), Stage(1, 128, 128))
    return ResNet(stages, stem_channels=16, bottleneck=False, norm="BN", freeze_at=0)
