"""What a loss remembers of the run (counts, gradients): noted part by part, learned once a step by every process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as torch_dist
from torch import Tensor

from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.runtime.dist import world_size


class RememberingLoss(ClassificationLoss):
    """Base of losses that follow the training; their memories are buffers of the state dict.

    A forward pass only notes what it saw. Whoever trains calls `learn` after the last part of a global batch, so that
    every part is judged by the same memory, however the batch is spread over processes and accumulated parts.
    """

    memories: tuple[str, ...]  # names of the buffers

    def __init__(self) -> None:
        super().__init__()
        self._noted: dict[str, Tensor] = {}  # no buffers: a checkpoint lies between steps, where nothing is pending

    @torch.no_grad()
    def note(self, name: str, increment: Tensor) -> None:
        """Add to what the buffer `name` will learn from this step."""
        self._noted[name] = self._noted[name] + increment if name in self._noted else increment.detach()

    def take(self, name: str) -> Tensor:
        """What was noted for the buffer `name` since the last call, zeros if nothing was."""
        noted = self._noted.pop(name, None)
        return torch.zeros_like(self.get_buffer(name)) if noted is None else noted


@torch.no_grad()
def learn(losses: Sequence[RememberingLoss]) -> None:
    """Add what all processes noted to the memories of `losses`: one small exchange a step, equal results everywhere.

    A step in which anything noted is not finite teaches nothing: its update is not made either.
    """
    memories = [(loss, name) for loss in losses for name in loss.memories]
    if not memories:
        return
    noted = torch.cat([loss.take(name).reshape(-1) for loss, name in memories])
    if world_size() > 1:
        torch_dist.all_reduce(noted)
    noted = torch.where(noted.isfinite().all(), noted, torch.zeros_like(noted))
    pieces = noted.split([loss.get_buffer(name).numel() for loss, name in memories])
    for (loss, name), piece in zip(memories, pieces, strict=True):
        memory = loss.get_buffer(name)
        memory += piece.view_as(memory)
