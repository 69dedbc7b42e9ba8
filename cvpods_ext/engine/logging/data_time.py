"""When training waits for images: say so once, name what is slow, and the setting that helps."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

_TOO_LONG = 0.2  # share of a step spent waiting for images
_RECORDS_BEFORE_ADVICE = 3  # records in a row, since loader processes need a while to get ahead


class DataWait:
    """Measures the share of time that a process waits for images.

    `workers` loader processes serve this process; the machine runs `processes` of them.
    """

    def __init__(self, workers: int, processes: int) -> None:
        self._workers, self._processes = workers, processes
        self._slow = 0
        self._advised = False
        self._cpu, self._since = loader_seconds(), time.monotonic()

    def advise(self, step_time: float, data_time: float) -> str | None:
        """Seconds of a typical step, in all and waiting for images -> advice, once, when the wait is long for good."""
        self._slow = self._slow + 1 if data_time > _TOO_LONG * step_time else 0
        cpu, now = loader_seconds(), time.monotonic()
        busy = (cpu - self._cpu) / max(now - self._since, 1e-6) / max(self._workers, 1)
        self._cpu, self._since = cpu, now
        if self._advised or self._slow < _RECORDS_BEFORE_ADVICE:
            return None
        self._advised = True
        share = f"{data_time:.2f} of {step_time:.2f} s of a step are spent waiting for images"
        return f"{share}: {advice(self._workers, self._processes, os.cpu_count() or 1, busy)}"


def advice(workers: int, processes: int, cores: int, busy: float) -> str:
    """The bottleneck and its remedy; `busy` is the share of a core that each loader process uses, in [0, 1]."""
    most = max(1, cores // processes)
    if workers == 0:
        return f"they are read between the steps. Set data.workers={min(4, most)} to read them ahead"
    if busy < 0.5:
        return (
            f"the loader processes wait for the storage ({busy:.0%} busy). Copy the images to a local disk, "
            f"or hide the delay with data.workers={2 * workers}"
        )
    if workers < most:
        return f"the loader processes are busy decoding ({busy:.0%}). Set data.workers={min(2 * workers, most)}"
    return (
        f"the loader processes are busy decoding ({busy:.0%}), and {processes} x {workers} of them take all {cores} "
        "cores. Store the images at the size they are trained at, or train with smaller data.train_sizes"
    )


def loader_seconds() -> float:
    """CPU seconds that the living loader processes have used; 0 where the system does not say."""
    ticks = 0
    try:
        for child in multiprocessing.active_children():
            fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime, stime
    except OSError:
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")
