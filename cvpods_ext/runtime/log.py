"""Where messages go: readable lines on stderr from rank 0, everything in a file per rank."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path

from rich.logging import RichHandler

from cvpods_ext.runtime.files import storage_error
from cvpods_ext.runtime.progress import console

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
        plain = logging.StreamHandler()
        plain.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(RichHandler(console=out, show_path=False) if out.is_terminal else plain)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error.strerror or str(error)) from error
        file = _LogFile(folder / ("log.txt" if rank == 0 else f"log.rank{rank}.txt"), encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)


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
