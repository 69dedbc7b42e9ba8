"""What a run reports while it trains: a progress bar, metrics.jsonl, and the curves that writers show."""

from __future__ import annotations

import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID

from cvpods_ext.engine.logging.data_time import DataWait
from cvpods_ext.engine.logging.writers import Writer
from cvpods_ext.evaluation.metric_table import MetricTable
from cvpods_ext.runtime.dist import is_main
from cvpods_ext.runtime.files import writing
from cvpods_ext.runtime.progress import progress_bar
from cvpods_ext.runtime.records import METRICS, append_record, drop_records_after

logger = logging.getLogger(__name__)

_TEST = "test/"
_REMEDY = "The last checkpoint is sound: make room, then continue with --resume"
Metrics = Mapping[str, Mapping[str, float | None]]


class Monitor:
    """Gathers scalars, and writes a record of their medians every so many steps; only rank 0 shows and writes anything.

    Records of a resumed run go on after `start`: what a killed run wrote beyond its last checkpoint is dropped.
    `writers` are closed at the end; `data_wait` turns waiting for images into advice.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        total: int,
        every: int,
        writers: Sequence[Writer] = (),
        data_wait: DataWait | None = None,
    ) -> None:
        self._every, self._start, self._total, self._folder = every, start, total, folder
        self._writers, self._data_wait = writers, data_wait
        self._values: dict[str, list[float]] = defaultdict(list)
        self._bar: Progress = progress_bar(disable=not is_main())
        self._task: TaskID = self._bar.add_task("training", total=total, completed=start, note="")
        self._tested: set[int] = set()  # iterations whose test is on record
        self._last_line = time.monotonic()

    def __enter__(self) -> Monitor:
        if is_main():
            self._folder.mkdir(parents=True, exist_ok=True)
            records = drop_records_after(self._folder / METRICS, self._start, _REMEDY)
            self._tested = {record["iteration"] for record in records if any(key.startswith(_TEST) for key in record)}
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        for writer in self._writers:
            try:
                writer.close()
            except OSError as failure:  # a full disk; what stopped the run, or that it is complete, matters more
                logger.warning("%s: not all could be written: %s", type(writer).__name__, failure)

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
        self._write(record, "train/")
        if self._data_wait is not None and (found := self._data_wait.advise(record["time"], record["data_time"])):
            logger.warning("%s", found)
        self._show(record)

    def tested(self, iteration: int, metrics: Metrics, table: MetricTable) -> None:
        """Record a test after `iteration` steps, by names like segm/AP; a second call for the same changes nothing.

        `metrics` by family and name, as in results.json; the headlines of `table` are shown.
        """
        if not is_main() or iteration in self._tested:
            return
        self._tested.add(iteration)
        flat = {
            f"{_TEST}{family}/{name}": value
            for family, values in metrics.items()
            for name, value in values.items()
            if value is not None
        }
        self._write({"iteration": iteration, **flat}, "")
        shown = "  ".join(f"{name} {value:.2f}" for name, value in table.headlines(metrics))
        logger.info("tested after iteration %d: %s", iteration, shown)

    def picture(self, name: str, image: Any, iteration: int) -> None:
        """Show an (H, W, 3) uint8 array with every writer."""
        for writer in self._writers:
            writer.picture(name, image, iteration)

    def _write(self, record: dict[str, Any], prefix: str) -> None:
        values = {f"{prefix}{name}": value for name, value in record.items() if name != "iteration"}
        append_record(self._folder / METRICS, record, _REMEDY)
        with writing(self._folder, _REMEDY):
            for writer in self._writers:
                writer.scalars(values, record["iteration"])

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


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
