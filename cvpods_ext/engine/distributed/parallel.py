"""One model on several processes: copied (DDP), cut into shards (FSDP2), or alone. Callers need not know which."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime import dist
from cvpods_ext.structures import Batch

_COMPILERS = ("g++", "clang++", "c++")


class ParallelModel:
    """The model of this process; `shard` keeps only this process's part of each parameter.

    Call it before the optimizer is built, since sharding replaces the parameters. With DDP no buffer is broadcast:
    frozen statistics never change, losses sum their own memories, and `RunningStatistics` averages batch norm.
    """

    def __init__(self, model: nn.Module, shard: bool = False) -> None:
        self.model = model
        self._forward: nn.Module = model
        self._shard = shard and dist.world_size() > 1
        if self._shard:
            _shard(model)
        elif dist.world_size() > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch 2.15 renames the option that 2.11 needs
                self._forward = nn.parallel.DistributedDataParallel(_WithZeroLoss(model), broadcast_buffers=False)
            _fix_buckets(self._forward)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars by name; gradients are averaged over processes during their backward pass."""
        return self._forward(batch)

    def exchange(self, last: bool) -> AbstractContextManager[None]:
        """Only the backward pass of the `last` micro-batch of a step exchanges gradients."""
        if self._shard:
            return self._exchange_shards(last)
        return nullcontext() if last or self._forward is self.model else self._forward.no_sync()  # type: ignore[operator]

    @contextmanager
    def _exchange_shards(self, last: bool) -> Iterator[None]:
        module = cast(FSDPModule, self.model)
        module.set_requires_gradient_sync(last)
        yield


class _WithZeroLoss(nn.Module):
    """Lets DDP see a backward pass before the first batch, see `_fix_buckets`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch | None) -> dict[str, Tensor]:
        """What the model gives for a batch; None gives a zero that depends on every parameter."""
        if batch is not None:
            return self.model(batch)
        return {"zero": torch.stack([p.sum() * 0.0 for p in self.model.parameters() if p.requires_grad]).sum()}


def _fix_buckets(model: nn.Module) -> None:
    """Give DDP the bucket order that it keeps, before training starts.

    DDP sorts gradients into other buckets after its first backward pass. A sum over more than two processes is rounded
    according to the position in the bucket, so that the first step after a resume would differ in the last bit.
    """
    for _ in range(2):  # the rebuilding happens in the second forward pass; one without a backward would confuse DDP
        model(None)["zero"].backward()
    model.zero_grad(set_to_none=True)


def _shard(model: nn.Module) -> None:
    """Shard each transformer block by itself, so that only one is gathered at a time, then all that is left."""
    kind = "cuda" if next(model.parameters()).is_cuda else "cpu"
    mesh = init_device_mesh(kind, (dist.world_size(),))
    for name, module in model.named_modules():
        parent, _, index = name.rpartition(".")
        if index.isdigit() and parent.rpartition(".")[2] == "blocks":
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor of a shard; every process must call it. Others are returned as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, sharing its memory; others are returned as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(target: Tensor, full: Tensor) -> Tensor:
    """`full` laid out as `target` is: this process's shard of it, or itself."""
    if not isinstance(target, DTensor) or full.shape != target.shape:
        return full
    return distribute_tensor(full.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def compile_backbone(model: nn.Module) -> None:
    """Compile `model.backbone` in place when it first runs; names of parameters and buffers stay as they are.

    Raises ConfigError where there is no backbone, or no C++ compiler, without which torch would fail in the first step.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(f"schedule.compile: {type(model).__name__} has no module called backbone; set it to False")
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([wanted] if wanted else _COMPILERS)):
        looked_for = f"CXX={wanted}" if wanted else ", ".join(_COMPILERS)
        raise ConfigError(
            f"schedule.compile needs a C++ compiler, and none is on PATH ({looked_for}): install one "
            "(apt install g++), or set schedule.compile=False, which gives the same results"
        )
    backbone.compile()
