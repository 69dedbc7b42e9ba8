"""Running statistics of batch norm that do not depend on how a batch is spread over processes and micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from cvpods_ext.runtime import dist


class RunningStatistics:
    """Moves the running mean and variance once a step, by the mean over all micro-batches of a step.

    Left alone, every process would follow its own images only, and every micro-batch would move them. In training
    a micro-batch is normalised with its own statistics, as always. Costs one small exchange a step, and nothing
    for a model without trainable batch norm.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and module.track_running_stats
            # A frozen layer keeps its statistics, see modeling.layers.
            and (module.weight is None or module.weight.requires_grad)
        ]
        self._values = [b for m in layers for b in (m.running_mean, m.running_var) if b is not None]
        self._counts = [m.num_batches_tracked for m in layers if m.num_batches_tracked is not None]
        self._micro_batches = 0

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Around forward and backward pass of one micro-batch (recomputed activations move statistics again)."""
        if not self._values:
            yield
            return
        if self._micro_batches == 0:
            self._before = [value.clone() for value in self._values]
            self._counts_before = [count.clone() for count in self._counts]
            self._sum = torch.zeros(sum(v.numel() for v in self._values), device=self._values[0].device)
        yield
        self._sum += _flat(self._values)
        self._micro_batches += 1
        _copy(self._values, self._before)

    def finish(self) -> None:
        """After the last micro-batch: all processes take the mean, unless it is not finite."""
        if not self._values:
            return
        if dist.world_size() > 1:
            torch_dist.all_reduce(self._sum)
        mean = self._sum / (self._micro_batches * dist.world_size())
        mean = torch.where(mean.isfinite().all(), mean, _flat(self._before))
        pieces = mean.split([value.numel() for value in self._values])
        _copy(self._values, [piece.view_as(v) for piece, v in zip(pieces, self._values, strict=True)])
        for count, before in zip(self._counts, self._counts_before, strict=True):
            count.copy_(before + 1)
        self._micro_batches = 0


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateImportUsage] - one kernel for all layers


def _flat(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])
