"""Losses with statistics of the run (counts, gradients): accumulated by micro-batch, synchronised once a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as torch_dist
from torch import Tensor

from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.runtime.dist import world_size


class StatefulLoss(ClassificationLoss):
    """Base of losses that depend on the training so far; their statistics are buffers of the state dict.

    A forward pass only accumulates increments. The training step calls `synchronize` after the last micro-batch of a
    global batch, so that all micro-batches are weighted by the same statistics, however the batch is spread over
    processes.
    """

    statistics: tuple[str, ...]  # names of the buffers

    def __init__(self) -> None:
        super().__init__()
        self._pending: dict[str, Tensor] = {}  # no buffers: a checkpoint lies between steps, where nothing is pending

    @torch.no_grad()
    def accumulate(self, name: str, increment: Tensor) -> None:
        """Add to the increment of the buffer `name` in this step."""
        pending = self._pending.get(name)
        self._pending[name] = increment.detach() if pending is None else pending + increment

    def take_pending(self, name: str) -> Tensor:
        """The increment of the buffer `name` since the last call, zeros if there is none."""
        pending = self._pending.pop(name, None)
        return torch.zeros_like(self.get_buffer(name)) if pending is None else pending


@torch.no_grad()
def synchronize(losses: Sequence[StatefulLoss]) -> None:
    """Add the increments of all processes to the statistics of `losses`: one small exchange a step, equal results.

    If any increment is not finite none is added: the update of such a step is left out as well.
    """
    buffers = [(loss, name) for loss in losses for name in loss.statistics]
    if not buffers:
        return
    pending = torch.cat([loss.take_pending(name).reshape(-1) for loss, name in buffers])
    if world_size() > 1:
        torch_dist.all_reduce(pending)
    pending = torch.where(pending.isfinite().all(), pending, torch.zeros_like(pending))
    pieces = pending.split([loss.get_buffer(name).numel() for loss, name in buffers])
    for (loss, name), piece in zip(buffers, pieces, strict=True):
        buffer = loss.get_buffer(name)
        buffer += piece.view_as(buffer)
