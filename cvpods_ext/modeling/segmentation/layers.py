"""Layers under the names that published segmentation files give them.

Shapes: N = images or crops, C = channels, H, W = rows and columns of a map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as torch_dist
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.layers import BatchNorm2d, init_msra
from cvpods_ext.runtime import dist


class SyncBatchNorm2d(BatchNorm2d):
    """Batch norm over the images of all processes, on any device; with one process it is plain batch norm.

    Segmentation trains with few crops a device, and the pooling branch of the head sees one value a crop and channel.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training or not self.weight.requires_grad or dist.world_size() == 1:
            return super().forward(input)
        x = input.float()
        count = torch.tensor([x.numel() / x.shape[1]], device=x.device)
        sums = _SumOverProcesses.apply(torch.cat((x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count)))
        count = sums[-1].detach()
        mean, square = (sums[:-1] / count).view(2, -1)
        variance = (square - mean.square()).clamp(min=0)
        self._move_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    def _move_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; the gradient of each summand is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch_dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverProcesses.forward(ctx, gradients[0])


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = SyncBatchNorm2d(out_channels)
        init_msra(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        return F.relu_(self.bn(self.conv(x)))


def resize_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *size), bilinear between pixel centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
