"""A running average of the weights, which often tests better than the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cvpods_ext.engine.distributed.parallel import local_shard
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.losses.base import ClassificationLoss


class WeightAverage:
    """average = decay * average + (1 - decay) * value, for every parameter and buffer, from the start of training.

    Starts as a copy, without warm-up. Whole numbers are copied, and buffers that never change stay exactly what they
    are. What a classification loss computes from class counts and does not save is left out. The average lives where
    the model lives, under the model's names, shared tensors once: the layout of `ema_state` in EVA-02's files.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._update = get_ema_multi_avg_fn(decay)
        self._loss_constants = _loss_constants(model)
        self.tensors = {name: value.detach().clone() for name, value in _tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's values, once after each optimizer step."""
        current = _tensors(model)
        floats = [name for name, value in self.tensors.items() if value.is_floating_point()]
        # Elementwise, hence right on the shards of sharded parameters.
        averages = [local_shard(self.tensors[name]) for name in floats]
        self._update(averages, [local_shard(current[name]) for name in floats], None)
        for name in self.tensors.keys() - set(floats):
            self.tensors[name].copy_(current[name])

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue with the average of a checkpoint; WeightsError, changing nothing, if it is of another model.

        Constants of losses, which earlier versions averaged too, are passed over.
        """
        state = {name: value for name, value in state.items() if name not in self._loss_constants}
        other = sorted(
            name
            for name in self.tensors.keys() | state.keys()
            if name not in state or name not in self.tensors or state[name].shape != self.tensors[name].shape
        )
        if other:
            raise WeightsError(
                f"the average of the checkpoint is of another model: {len(other)} tensors differ, for example "
                f"{other[0]!r}. Resume with the net.py that the run was started with"
            )
        for name, value in self.tensors.items():
            value.copy_(state[name])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    constants = _loss_constants(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value for name, value in tensors.items() if name not in constants}


def _loss_constants(model: nn.Module) -> set[str]:
    """Names of the buffers that classification losses do not save."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, ClassificationLoss)
        for name in dict(module.named_buffers()).keys() - module.state_dict().keys()
    }
