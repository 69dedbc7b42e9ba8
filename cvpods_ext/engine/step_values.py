"""What each step measured, collected without making the device wait; the first value that is not finite is an error."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from cvpods_ext.errors import ConfigError, TrainingError
from cvpods_ext.runtime.dist import mean_over_processes


class NonFiniteError(TrainingError):
    """A loss or the gradient of `iteration` is NaN or infinite; `is_ours`: this process may hold the cause."""

    def __init__(self, message: str, iteration: int, is_ours: bool) -> None:
        super().__init__(message)
        self.iteration, self.is_ours = iteration, is_ours


def is_loss(name: str) -> bool:
    """Whether a value that a model returns is added to the total loss; others are only logged."""
    return name.startswith("loss")


def total_loss(values: dict[str, Tensor]) -> Tensor:
    """The sum of the losses among the scalars that a model returned, float32. ConfigError if there is none."""
    losses = [value.float() for name, value in values.items() if is_loss(name)]
    if not losses:
        raise ConfigError(f"the model returned no value whose name starts with 'loss' (its names: {list(values)})")
    return torch.stack(losses).sum()


@dataclass
class StepValues:
    """What one step measured in this process.

    `values` are the scalars that the model returned, in the order of `names`; `grad_norm` is the length of the whole
    gradient, equal in every process; `stop` says whether this process was asked to stop.
    """

    iteration: int
    names: tuple[str, ...]
    values: Tensor
    grad_norm: Tensor
    image_ids: list[int]
    stop: bool = False


@dataclass
class _Pending:
    step: StepValues
    numbers: Tensor  # on their way to the CPU
    arrived: torch.cuda.Event | None


class CollectedLosses:
    """Collects what each step measured and raises NonFiniteError at the first loss that is not finite.

    With `gradient_may_overflow`, as under fp16, an infinite gradient is left to the loss scaler.
    """

    def __init__(self, gradient_may_overflow: bool = False) -> None:
        self.stop_agreed = False
        self._pending: deque[_Pending] = deque()
        self._gradient_may_overflow = gradient_may_overflow

    def push(self, step: StepValues) -> None:
        """Start copying one step's values to the CPU."""
        own = step.values.detach().float()
        shared = mean_over_processes(torch.cat((own.new_full((1,), float(step.stop)), own)))
        numbers = torch.cat((step.grad_norm.detach().float().reshape(1), shared, own))
        copy = numbers.to("cpu", non_blocking=True)
        arrived = None
        if numbers.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending.append(_Pending(step, copy, arrived))

    def collect(self, wait: bool = False) -> list[dict[str, float]]:
        """Values of the steps that are known by now, mean over processes; `wait` for all, as before a checkpoint.

        Adds `total_loss` and `grad_norm`. Values beside the losses are left out where they are not finite.
        """
        ready = []
        while self._pending and (wait or self._pending[0].arrived is None or len(self._pending) > 1):
            pending = self._pending.popleft()
            if pending.arrived is not None:
                pending.arrived.synchronize()
            ready.append(self._record(pending))
        return ready

    def _record(self, pending: _Pending) -> dict[str, float]:
        step = pending.step
        norm, stop, *rest = pending.numbers.tolist()
        mean = dict(zip(step.names, rest[: len(step.names)], strict=True))
        own = dict(zip(step.names, rest[len(step.names) :], strict=True))
        self.stop_agreed |= stop > 0
        losses_are_finite = all(math.isfinite(value) for name, value in mean.items() if is_loss(name))
        if not losses_are_finite or not (math.isfinite(norm) or self._gradient_may_overflow):
            parts = ", ".join(f"{name}={value:.4g}" for name, value in own.items())
            raise NonFiniteError(
                f"{'gradient' if losses_are_finite else 'loss'} is not finite at iteration {step.iteration} "
                f"({parts}, grad_norm={norm:.4g}; image ids {step.image_ids}). The weights and the last checkpoint are "
                "those before it. Try a longer schedule.warmup_iters, schedule.clip_norm=35, or a lower schedule.lr, "
                "and continue with --resume",
                step.iteration,
                is_ours=losses_are_finite or not all(math.isfinite(v) for name, v in own.items() if is_loss(name)),
            )
        record = {name: value for name, value in mean.items() if math.isfinite(value)}
        record["total_loss"] = sum(value for name, value in mean.items() if is_loss(name))
        return record | ({"grad_norm": norm} if math.isfinite(norm) else {})
