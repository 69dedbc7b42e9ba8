"""Training batches that go on when a process that reads images is killed."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator

from cvpods_ext.errors import DataError, TrainingError
from cvpods_ext.structures import Batch

logger = logging.getLogger(__name__)

_FAILURES_IN_A_ROW = 3


class ResilientLoader:
    """Endless batches; `open_at(iteration)` starts loader processes there, `micro_batches` make up an iteration.

    Since the batches of an iteration depend on nothing but seed and iteration, loader processes that were killed
    (usually for want of memory) are replaced by new ones that go on at the same batch. TrainingError after three in a
    row.
    """

    def __init__(self, open_at: Callable[[int], Iterator[Batch]], start: int, micro_batches: int) -> None:
        self._open_at, self._start, self._micro_batches = open_at, start, micro_batches
        self._taken = self._failures = 0
        self._batches = open_at(start)

    def __next__(self) -> Batch:
        while True:
            try:
                batch = next(self._batches)
            except DataError as error:
                if error.__cause__ is None:  # the data are wrong
                    raise
                self._replace(error)
                continue
            if self._taken == 0:
                _ignore_ended_children()
            self._taken += 1
            self._failures = 0
            return batch

    def _replace(self, error: DataError) -> None:
        self._failures += 1
        if self._failures > _FAILURES_IN_A_ROW:
            raise TrainingError(
                f"processes that read images die again and again ({error.__cause__}). Usually memory is short: "
                "lower data.workers, or give the container more shared memory (--shm-size). Continue with --resume"
            ) from error
        iteration, taken = divmod(self._taken, self._micro_batches)
        logger.warning("a process that reads images died (%s); it is replaced", error.__cause__)
        del self._batches
        self._batches = self._open_at(self._start + iteration)
        for _ in range(taken):
            next(self._batches)


def _ignore_ended_children() -> None:
    """Undo the handler by which torch raises for a dead loader process wherever the main thread is, even inside a step.

    The loader finds the death by itself when it waits for a batch.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
