"""SIGTERM and Ctrl-C become a stop request, which the training loop checks between two steps."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

# Seconds: the terminal and the launcher may both pass one Ctrl-C on, a second one of the user's comes later.
_SECOND_REQUEST_AFTER = 3.0
_AFTER_CHECKPOINT = "stopped right after a checkpoint; continue with --resume"


class StopSignal:
    """While it is entered, the first signal only sets `requested`; Ctrl-C again, seconds later, interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._process, self._since, self._waits = os.getpid(), 0.0, True

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Around long work that follows a checkpoint: a signal, also one that came before, raises KeyboardInterrupt."""
        if self.requested:
            raise KeyboardInterrupt(_AFTER_CHECKPOINT)
        self._waits = False
        try:
            yield
        finally:
            self._waits = True

    def _request(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked reader: on Ctrl-C it must go on until the last step has its images.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if not self._waits:
            self.requested = self._waits = True  # a second signal must not interrupt the way out
            raise KeyboardInterrupt(_AFTER_CHECKPOINT)
        now = time.monotonic()
        if self.requested and number == signal.SIGINT and now - self._since > _SECOND_REQUEST_AFTER:
            raise KeyboardInterrupt
        if not self.requested:
            self._since = now
            logger.warning("stopping after this step; a checkpoint will be written")
        self.requested = True
