"""One optimizer step over the global batch: this process's share, accumulated where it does not fit at once."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.config import Config, Schedule
from cvpods_ext.data.resilient_loader import ResilientLoader
from cvpods_ext.engine.distributed.batch_norm import RunningStatistics
from cvpods_ext.engine.distributed.parallel import ParallelModel, full_tensor
from cvpods_ext.engine.optim import set_learning_rate
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.engine.step_values import CollectedLosses, StepValues, total_loss
from cvpods_ext.modeling.losses.stateful import StatefulLoss, synchronize
from cvpods_ext.runtime import dist
from cvpods_ext.structures import Batch


class Step:
    """Takes steps and hands what they measured to `losses`.

    An update with a gradient that is not finite is not made, nor any after it: when `losses` reports the step, which
    on a GPU is one step later, model and optimizer still are what they were before it.
    """

    def __init__(self, model: ParallelModel, state: TrainingState, config: Config, device: torch.device) -> None:
        self.model, self.state, self.device = model, state, device
        self.seed, self.schedule = config.seed, config.schedule
        self.micro_batches = config.schedule.accumulation(dist.world_size())
        self.trainable = [p for group in state.optimizer.param_groups for p in group["params"]]
        self.losses = CollectedLosses(gradient_may_overflow=state.scaler.is_enabled())
        self.recent: deque[tuple[int, list[Batch]]] = deque(maxlen=2)  # what pods_debug would need
        self._statistics = RunningStatistics(state.model)
        self._stateful = [module for module in state.model.modules() if isinstance(module, StatefulLoss)]
        self._not_finite = torch.zeros((), device=device)
        self._skips_by_itself = bool(state.optimizer.defaults.get("fused"))
        if self._skips_by_itself and not state.scaler.is_enabled():
            state.optimizer.found_inf = self._not_finite  # type: ignore[attr-defined]  # as the loss scaler does

    def run(self, iteration: int, rate: float, batches: ResilientLoader, stop: bool) -> dict[str, float]:
        """Take the step; `stop` is this process's stop request. Returns the seconds spent, in all and on data."""
        started, data_time = time.perf_counter(), 0.0
        set_learning_rate(self.state.optimizer, rate)
        self.state.optimizer.zero_grad(set_to_none=True)
        names: tuple[str, ...] = ()
        taken: list[Batch] = []
        self.recent.append((iteration, taken))
        mean = torch.zeros((), device=self.device)
        for index in range(self.micro_batches):
            waiting = time.perf_counter()
            taken.append(next(batches))
            data_time += time.perf_counter() - waiting
            number = index * dist.world_size() + dist.rank()
            seed_all(micro_batch_seed(self.seed, iteration, number), self.device)
            names, values = self._forward_backward(taken[-1].to(self.device), last=index == self.micro_batches - 1)
            mean = mean + values / self.micro_batches
        self._statistics.finish()
        synchronize(self._stateful)
        norm = self._update()
        image_ids = [image_id for batch in taken for image_id in batch.image_ids]
        self.losses.push(StepValues(iteration, names, mean, norm, image_ids, stop))
        return {"time": time.perf_counter() - started, "data_time": data_time}

    def _forward_backward(self, batch: Batch, last: bool) -> tuple[tuple[str, ...], Tensor]:
        """Names and a vector of the values that the model gives; gradients are exchanged after the last micro-batch."""
        with self.model.exchange(last), self._statistics.micro_batch():
            with autocast(self.device, self.schedule):
                values = self.model(batch)
            self.state.scaler.scale(total_loss(values) / self.micro_batches).backward()
        return tuple(values), torch.stack([value.detach().float() for value in values.values()])

    def _update(self) -> Tensor:
        """Move the weights and their average; returns the length of the gradient before clipping, a scalar."""
        state = self.state
        if state.scaler.is_enabled():
            state.scaler.unscale_(state.optimizer)
        gradients = [p.grad for p in self.trainable if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.schedule.clip_norm:
            nn.utils.clip_grads_with_norm_(self.trainable, self.schedule.clip_norm, norm)
        norm = full_tensor(norm)
        if state.scaler.is_enabled():
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            torch.maximum(self._not_finite, (~norm.isfinite()).float(), out=self._not_finite)
            if self._skips_by_itself or not self._not_finite.item():
                state.optimizer.step()
        if state.average is not None:
            state.average.update(state.model)
        return norm


def autocast(device: torch.device, schedule: Schedule) -> Any:
    """The precision that the schedule asks for; float32 stays as it is."""
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[schedule.precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on `device` draws from; torch.manual_seed takes milliseconds without a GPU."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def micro_batch_seed(seed: int, iteration: int, number: int) -> int:
    """Seed of all random numbers inside micro-batch `number` of a step, whichever process computes it."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{iteration}/{number}".encode(), digest_size=7).digest(), "big")
