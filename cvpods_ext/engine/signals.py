"""SIGTERM and Ctrl-C become a request that the training loop honours between two steps."""

from __future__ import annotations

import logging
import os
import signal
import time
from types import FrameType

logger = logging.getLogger(__name__)

# The terminal and the launcher may both pass one Ctrl-C on; a person who insists presses it again later.
_INSISTING = 3.0


class StopSignal:
    """While it is entered, the first signal only sets `requested`; Ctrl-C again, seconds later, interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._process, self._since = os.getpid(), 0.0

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked reader: on Ctrl-C it must go on until the last step has its images.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.requested and number == signal.SIGINT and now - self._since > _INSISTING:
            raise KeyboardInterrupt
        if not self.requested:
            self._since = now
            logger.warning("stopping after this step; a checkpoint will be written")
        self.requested = True
