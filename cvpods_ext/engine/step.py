"""One optimizer step over the global batch: this process's share, accumulated where it does not fit at once."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.config import Config, Schedule
from cvpods_ext.data.resilient_loader import Reading
from cvpods_ext.engine.distributed.batch_norm import RunningStatistics
from cvpods_ext.engine.distributed.parallel import Replica, whole
from cvpods_ext.engine.optim import set_learning_rate
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import TrainingError
from cvpods_ext.modeling.losses.memory import RememberingLoss, learn
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.dist import mean_over_processes
from cvpods_ext.structures import Batch


class NotFinite(TrainingError):
    """A loss or the gradient of `iteration` is NaN or infinite; `is_ours`: this process may hold the cause."""

    def __init__(self, message: str, iteration: int, is_ours: bool) -> None:
        super().__init__(message)
        self.iteration, self.is_ours = iteration, is_ours


@dataclass
class _Pending:
    iteration: int
    names: tuple[str, ...]
    values: Tensor  # on their way to the CPU
    arrived: torch.cuda.Event | None
    image_ids: list[int]


class LossWatch:
    """Collects what each step measured and raises NotFinite at the first value that is not finite.

    `gradient_may_overflow`: under fp16 an infinite gradient is the loss scaler's affair.
    """

    def __init__(self, gradient_may_overflow: bool = False) -> None:
        self.stop_agreed = False
        self._pending: deque[_Pending] = deque()
        self._gradient_may_overflow = gradient_may_overflow

    def push(
        self,
        iteration: int,
        names: tuple[str, ...],
        losses: Tensor,
        norm: Tensor,
        image_ids: list[int],
        stop: bool = False,
    ) -> None:
        """Start copying one step's values to the CPU.

        Args:
            losses: this process's losses in the order of `names`.
            norm: scalar, length of the whole gradient, equal in every process.
            stop: whether this process was asked to stop.
        """
        own = losses.detach().float()
        shared = mean_over_processes(torch.cat((own.new_full((1,), float(stop)), own)))
        values = torch.cat((norm.detach().float().reshape(1), shared, own))
        copy = values.to("cpu", non_blocking=True)
        arrived = None
        if values.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending.append(_Pending(iteration, names, copy, arrived, image_ids))

    def collect(self, wait: bool = False) -> list[dict[str, float]]:
        """Losses of the steps that are known by now, mean over processes; `wait` for all, as before a checkpoint."""
        ready = []
        while self._pending and (wait or self._pending[0].arrived is None or len(self._pending) > 1):
            step = self._pending.popleft()
            if step.arrived is not None:
                step.arrived.synchronize()
            ready.append(self._read(step))
        return ready

    def _read(self, step: _Pending) -> dict[str, float]:
        norm, stop, *rest = step.values.tolist()
        mean, own = rest[: len(step.names)], rest[len(step.names) :]
        self.stop_agreed |= stop > 0
        everywhere = all(map(math.isfinite, mean))
        if not everywhere or not (math.isfinite(norm) or self._gradient_may_overflow):
            parts = ", ".join(f"{name}={value:.4g}" for name, value in zip(step.names, own, strict=True))
            what = "gradient" if everywhere else "loss"
            raise NotFinite(
                f"{what} is not finite at iteration {step.iteration} ({parts}, grad_norm={norm:.4g}; "
                f"image ids {step.image_ids}). The weights and the last checkpoint are those before it. Try a longer "
                "schedule.warmup_iters, schedule.clip_norm=35, or a lower schedule.lr, and continue with --resume",
                step.iteration,
                is_ours=everywhere or not all(map(math.isfinite, own)),
            )
        record = dict(zip(step.names, mean, strict=True))
        record["total_loss"] = sum(mean)
        return record | ({"grad_norm": norm} if math.isfinite(norm) else {})


class Step:
    """Takes steps and hands their losses to `watch`.

    An update with a gradient that is not finite is not made, nor any after it: when the watch reports the step, which
    on a GPU is one step later, model and optimizer still are what they were before it.
    """

    def __init__(self, replica: Replica, state: TrainingState, config: Config, device: torch.device) -> None:
        self.replica, self.state, self.device = replica, state, device
        self.seed, self.schedule = config.seed, config.schedule
        self.parts = config.schedule.accumulation(dist.world_size())
        self.trainable = [p for group in state.optimizer.param_groups for p in group["params"]]
        self.watch = LossWatch(gradient_may_overflow=state.scaler.is_enabled())
        self.recent: deque[tuple[int, list[Batch]]] = deque(maxlen=2)  # what pods_debug would need
        self._statistics = RunningStatistics(state.model)
        self._remembering = [module for module in state.model.modules() if isinstance(module, RememberingLoss)]
        self._bad = torch.zeros((), device=device)
        self._skips_by_itself = bool(state.optimizer.defaults.get("fused"))
        if self._skips_by_itself and not state.scaler.is_enabled():
            state.optimizer.found_inf = self._bad  # type: ignore[attr-defined]  # as the loss scaler does

    def run(self, iteration: int, rate: float, batches: Reading, stop: bool) -> dict[str, float]:
        """Take the step; `stop` is this process's wish to end. Returns the seconds spent, in all and on data."""
        started, data_time = time.perf_counter(), 0.0
        set_learning_rate(self.state.optimizer, rate)
        self.state.optimizer.zero_grad(set_to_none=True)
        names: tuple[str, ...] = ()
        taken: list[Batch] = []
        self.recent.append((iteration, taken))
        total = torch.zeros((), device=self.device)
        for part in range(self.parts):
            waiting = time.perf_counter()
            taken.append(next(batches))
            data_time += time.perf_counter() - waiting
            seed_all(part_seed(self.seed, iteration, part * dist.world_size() + dist.rank()), self.device)
            names, values = self._forward_backward(taken[-1].to(self.device), last=part == self.parts - 1)
            total = total + values / self.parts
        self._statistics.finish()
        learn(self._remembering)
        norm = self._update()
        self.watch.push(iteration, names, total, norm, [i for batch in taken for i in batch.image_ids], stop)
        return {"time": time.perf_counter() - started, "data_time": data_time}

    def _forward_backward(self, batch: Batch, last: bool) -> tuple[tuple[str, ...], Tensor]:
        """Loss names and a vector of their values; gradients are added up, and exchanged after the last part."""
        with self.replica.exchange(last), self._statistics.part():
            with autocast(self.device, self.schedule):
                losses = self.replica(batch)
            values = torch.stack([value.float() for value in losses.values()])
            self.state.scaler.scale(values.sum() / self.parts).backward()
        return tuple(losses), values.detach()

    def _update(self) -> Tensor:
        """Move the weights and their average; returns the length of the gradient before clipping, a scalar."""
        state = self.state
        if state.scaler.is_enabled():
            state.scaler.unscale_(state.optimizer)
        gradients = [p.grad for p in self.trainable if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.schedule.clip_norm:
            nn.utils.clip_grads_with_norm_(self.trainable, self.schedule.clip_norm, norm)
        norm = whole(norm)
        if state.scaler.is_enabled():
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            torch.maximum(self._bad, (~norm.isfinite()).float(), out=self._bad)
            if self._skips_by_itself or not self._bad.item():
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


def part_seed(seed: int, iteration: int, part: int) -> int:
    """Seed of all random numbers inside one part of a step, whichever process computes it."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{iteration}/{part}".encode(), digest_size=7).digest(), "big")
