"""What a run tells while it trains: a progress bar, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch.utils.tensorboard.writer import SummaryWriter

from cvpods_ext.engine.bottleneck import DataWait
from cvpods_ext.errors import TrainingError
from cvpods_ext.runtime.dist import is_main
from cvpods_ext.runtime.files import write_text
from cvpods_ext.runtime.progress import progress_bar

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class Monitor:
    """The run's window to the outside; only rank 0 shows and writes anything.

    Records of a resumed run go on after `start`: what a killed run wrote beyond its last checkpoint is dropped.
    `data_wait` turns waiting for images into advice.
    """

    def __init__(self, folder: Path, start: int, total: int, every: int, data_wait: DataWait | None = None) -> None:
        self._every, self._start, self._total, self._folder = every, start, total, folder
        self._data_wait = data_wait
        self._values: dict[str, list[float]] = defaultdict(list)
        self._bar: Progress = progress_bar(disable=not is_main())
        self._task: TaskID = self._bar.add_task("training", total=total, completed=start, note="")
        self._board: SummaryWriter | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Monitor:
        if is_main():
            self._folder.mkdir(parents=True, exist_ok=True)
            drop_records_after(self._folder / METRICS, self._start)
            self._board = SummaryWriter(str(self._folder), purge_step=self._start + 1)
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        try:
            if self._board is not None:
                self._board.close()
        except OSError as lost:  # a full disk; what stopped the run, or that it is complete, matters more
            logger.warning("the TensorBoard file is incomplete: %s", lost)

    def add(self, **values: float) -> None:
        """Keep scalars of one step until the next record."""
        for name, value in values.items():
            self._values[name].append(value)

    def step(self, iteration: int, lr: float) -> None:
        """Advance to `iteration` finished steps; write a record at the logging interval and at the end."""
        self._bar.update(self._task, completed=iteration)
        # On a GPU the losses of the very first step are known after the second.
        if not is_main() or "total_loss" not in self._values or (iteration % self._every and iteration != self._total):
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
        assert self._board is not None
        try:
            with open(self._folder / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in record.items():
                if name != "iteration":
                    self._board.add_scalar(f"train/{name}", value, record["iteration"])
        except OSError as error:
            raise TrainingError(
                f"cannot write to {self._folder} ({error}). The last checkpoint is sound: make room, then "
                "continue with --resume"
            ) from error
        if self._data_wait is not None and (found := self._data_wait.judge(record["time"], record["data_time"])):
            logger.warning("%s", found)
        self._show(record)

    def _show(self, record: dict[str, Any]) -> None:
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


def drop_records_after(file: Path, iteration: int) -> None:
    """Keep the records up to `iteration`; a last line that was cut off by a kill goes as well."""
    if not file.is_file():
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["iteration"] <= iteration]
    if len(kept) < len(lines):
        write_text(file, "".join(kept))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
