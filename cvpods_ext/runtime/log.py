"""Where messages go: readable lines on stderr from rank 0, everything in a file per rank."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rich.logging import RichHandler

from cvpods_ext.runtime.files import storage_error
from cvpods_ext.runtime.progress import console
from cvpods_ext.runtime.text import printable_lines

LOGGER = "cvpods_ext"


def setup_logging(folder: Path | None = None, rank: int = 0) -> None:
    """Send the package's log to stderr (rank 0 only) and to `folder`/log.txt (log.rank1.txt, ... elsewhere)."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    if rank == 0:
        out = console()
        # In a pipe or a scheduler's file, lines must not be folded.
        plain = _Stderr()
        plain.setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        rich = RichHandler(console=out, show_path=False)
        rich.setFormatter(_Formatter("%(message)s"))
        logger.addHandler(rich if out.is_terminal else plain)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        file = _LogFile(folder / ("log.txt" if rank == 0 else f"log.rank{rank}.txt"), encoding="utf-8")
        file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)


class _Formatter(logging.Formatter):
    """Names in messages come from anybody: no character of them reaches the terminal as a command."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record, with what no terminal should obey spelled out."""
        return printable_lines(super().formatMessage(record))


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is when a message comes, which a caller may have redirected since."""

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stream of errors of this moment."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """The base class sets one when it is made; it is not kept."""


class _LogFile(logging.FileHandler):
    """On a full disk lines are left out: what cannot be written must not end in a traceback on the screen."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that lines are missing."""
        if self.level < logging.CRITICAL:
            self.level = logging.CRITICAL
            print(f"{self.baseFilename} cannot be written any more ({sys.exc_info()[1]})", file=sys.stderr)

    def close(self) -> None:
        """Close the file; what a full disk does not take is lost."""
        with suppress(OSError):
            super().close()
