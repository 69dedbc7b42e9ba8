"""What a run tells while it trains: a progress bar, metrics.jsonl, TensorBoard, and an alarm for losses gone bad.

Losses are read one step late on a CUDA device, when their copy has long arrived, so that watching never stalls a step.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from cvpods_ext.errors import TrainingError
from cvpods_ext.runtime.dist import is_main
from cvpods_ext.runtime.progress import progress_bar

logger = logging.getLogger(__name__)


@dataclass
class _Pending:
    iteration: int
    names: tuple[str, ...]
    values: Tensor  # (len(names),) on its way to the CPU
    arrived: torch.cuda.Event | None
    image_ids: list[int]


class LossWatch:
    """Collects the losses of each step and raises TrainingError at the first that is not finite."""

    def __init__(self) -> None:
        self._pending: deque[_Pending] = deque()

    def push(self, iteration: int, names: tuple[str, ...], values: Tensor, image_ids: list[int]) -> None:
        """Start copying the losses of one step, a vector in the order of `names`, to the CPU."""
        arrived = None
        copy = values.detach().to("cpu", torch.float32, non_blocking=True)
        if values.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending.append(_Pending(iteration, names, copy, arrived, image_ids))

    def collect(self, wait: bool = False) -> list[dict[str, float]]:
        """Losses of the steps that are known by now; `wait` for all of them, as before a checkpoint."""
        ready = []
        while self._pending and (wait or self._pending[0].arrived is None or len(self._pending) > 1):
            step = self._pending.popleft()
            if step.arrived is not None:
                step.arrived.synchronize()
            losses = dict(zip(step.names, step.values.tolist(), strict=True))
            if not torch.isfinite(step.values).all():
                parts = ", ".join(f"{name}={value:.4g}" for name, value in losses.items())
                raise TrainingError(
                    f"loss is not finite at iteration {step.iteration} ({parts}; image ids {step.image_ids}). "
                    "The last checkpoint is sound. Try a longer schedule.warmup_iters, schedule.clip_norm=35, or a "
                    "lower schedule.lr, and continue with --resume"
                )
            ready.append(losses)
        return ready


class Monitor:
    """The run's window to the outside; only rank 0 shows and writes anything."""

    def __init__(self, folder: Path, start: int, total: int, every: int) -> None:
        self._every, self._total, self._folder = every, total, folder
        self._values: dict[str, list[float]] = defaultdict(list)
        self._bar: Progress = progress_bar(disable=not is_main())
        self._task: TaskID = self._bar.add_task("training", total=total, completed=start, note="")
        self._board: SummaryWriter | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Monitor:
        if is_main():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._board = SummaryWriter(str(self._folder))
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def add(self, **values: float) -> None:
        """Keep scalars of one step until the next record."""
        for name, value in values.items():
            self._values[name].append(value)

    def step(self, iteration: int, lr: float) -> None:
        """Advance to `iteration` finished steps; write a record at the logging interval and at the end."""
        self._bar.update(self._task, completed=iteration)
        if not is_main() or not self._values or (iteration % self._every and iteration != self._total):
            return
        record: dict[str, Any] = {"iteration": iteration, "lr": lr}
        record.update({name: statistics.median(values) for name, values in sorted(self._values.items())})
        if torch.cuda.is_available():
            record["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        self._values.clear()
        self._write(record)

    def picture(self, name: str, image: Any, iteration: int) -> None:
        """Show an (H, W, 3) uint8 array in TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, image, iteration, dataformats="HWC")

    def _write(self, record: dict[str, Any]) -> None:
        with open(self._folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        assert self._board is not None
        for name, value in record.items():
            if name != "iteration":
                self._board.add_scalar(f"train/{name}", value, record["iteration"])
        losses = "  ".join(f"{k.removeprefix('loss_')} {v:.3f}" for k, v in record.items() if k.startswith("loss_"))
        note = (
            f"loss {record['total_loss']:.3f} ({losses})  lr {record['lr']:.2g}  "
            f"{record['time']:.2f} s/it  data {record['data_time']:.2f} s"
        )
        self._bar.update(self._task, note=note)
        # Without a terminal a line now and then replaces the bar.
        now = time.monotonic()
        if self._bar.disable and (now - self._last_line > 10 or record["iteration"] == self._total):
            self._last_line = now
            remaining = record["time"] * (self._total - record["iteration"])
            logger.info("%d/%d  eta %s  %s", record["iteration"], self._total, _clock(remaining), note)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
