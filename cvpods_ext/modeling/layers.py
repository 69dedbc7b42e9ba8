"""Convolutions with their normalisation, named as in published checkpoints (`conv1.weight`, `conv1.norm.weight`).

Shapes: B = images, C = channels, H, W = rows and columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine terms, all buffers, so that small batches cannot spoil them.

    A fresh layer has variance 1 - eps and is therefore an exact identity. Version 3 of the published state: files of
    earlier versions hold the variance plus eps.
    """

    _version = 3

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - eps)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The layer as y = x * scale + shift, each (C,)."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        scale, shift = self.scale_and_shift()
        return x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also keeps its statistics while its parameters are frozen, unless `moves_when_frozen` is set."""

    moves_when_frozen = False

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if self.training and not self.weight.requires_grad and not self.moves_when_frozen:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if self.training and input.numel() == input.shape[1]:
            raise ConfigError(
                "a batch norm sees one value a channel, whose variance is no number: train with "
                "schedule.images_per_device=2 or more, or on several processes where the norm spans them"
            )
        return super().forward(input)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map, as in ViTDet."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_norm(name: str, channels: int) -> nn.Module | None:
    """A normalisation by its usual name: "" (none), FrozenBN, BN, GN (32 groups or fewer) or LN."""
    if name == "":
        return None
    if name == "FrozenBN":
        return FrozenBatchNorm2d(channels)
    if name == "BN":
        return BatchNorm2d(channels)
    if name == "GN":
        return nn.GroupNorm(min(32, channels), channels)
    if name == "LN":
        return LayerNorm2d(channels)
    raise ConfigError(f"unknown norm {name!r}: choose one of '', 'FrozenBN', 'BN', 'GN', 'LN'")


class Conv2d(nn.Conv2d):
    """Convolution, then `norm`, then ReLU where asked for; it has a bias only without a norm.

    A frozen norm is folded into the kernel on the fly: the same function in one pass over the map instead of three.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: str = "",
        relu: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=norm == "",
        )
        self.norm = make_norm(norm, out_channels)
        self.relu = relu

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        if isinstance(self.norm, FrozenBatchNorm2d):
            scale, shift = self.norm.scale_and_shift()
            x = self._conv_forward(input, self.weight * scale[:, None, None, None], shift)
        else:
            x = self._conv_forward(input, self.weight, self.bias)
            x = x if self.norm is None else self.norm(x)
        return F.relu_(x) if self.relu else x


def init_msra(layer: nn.Module) -> None:
    """Kaiming normal over the fan-out and zero bias, for every convolution followed by a ReLU."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_xavier(layer: nn.Module) -> None:
    """Caffe2's "XavierFill" (Kaiming uniform with a = 1) and zero bias, for the pyramid and the box head."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_normal(layer: nn.Module, std: float) -> None:
    """Normal weights of width `std` and zero bias, for the last layer of a head."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def trains(module: nn.Module | None) -> bool:
    """Whether any parameter of `module` is to be trained; what is frozen throughout needs no loss of its own."""
    return module is not None and any(parameter.requires_grad for parameter in module.parameters())


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device` without waiting for what the device still does."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Copy tensors of one device to the host, which waits for that device once for all of them."""
    device = tensors[0].device
    if device.type != "cuda":
        return tensors
    copies = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)
    torch.cuda.current_stream(device).synchronize()
    return copies
