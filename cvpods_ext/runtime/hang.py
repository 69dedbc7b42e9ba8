"""A process that makes no progress writes down where each of its threads is."""

from __future__ import annotations

import faulthandler
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TextIO

from cvpods_ext.runtime.files import writing

logger = logging.getLogger(__name__)


class HangDetector:
    """Every process of a run has one: when one process is stuck, the others wait for it and report as well.

    After `seconds` without `beat()` the stacks of all threads are appended to `file`, once until the next beat. At any
    time `kill -USR1 PID` does the same. 0 seconds leave only the signal.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self._path, self._seconds = file, seconds
        self._last, self._reported = time.monotonic(), False
        self._suspended = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang detector", daemon=True)

    def __enter__(self) -> HangDetector:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self._path):
            self._file: TextIO = open(self._path, "a", encoding="utf-8")
        faulthandler.register(signal.SIGUSR1, self._file, all_threads=True)
        if self._seconds > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        faulthandler.unregister(signal.SIGUSR1)
        self._file.close()
        if self._path.stat().st_size == 0:
            self._path.unlink()

    def beat(self) -> None:
        """Progress was made."""
        self._last, self._reported = time.monotonic(), False

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Around work that has no steps; `kill -USR1` still answers."""
        self._suspended = True
        try:
            yield
        finally:
            self._suspended = False
            self.beat()

    def _watch(self) -> None:
        while not self._end.wait(min(10.0, self._seconds / 4)):
            waited = time.monotonic() - self._last
            if waited > self._seconds and not self._reported and not self._suspended:
                self._reported = True
                logger.error("no step was finished for %.0f s; see where every thread is in %s", waited, self._path)
                self._file.write(f"\n{time.strftime('%F %T')}: no progress for {waited:.0f} s\n")
                self._file.flush()
                faulthandler.dump_traceback(self._file, all_threads=True)
