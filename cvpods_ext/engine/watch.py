"""Losses, gradient norm and the wish to stop, averaged over processes and read without stalling a step.

On a CUDA device a step's values are read one step late, when their copy has long arrived; in every process at the same
step, so that all processes stop together.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from cvpods_ext.errors import TrainingError
from cvpods_ext.runtime.dist import mean_over_processes


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
