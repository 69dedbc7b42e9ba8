"""Where messages go: readable lines on stderr from rank 0, everything in a file per rank."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.logging import RichHandler

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
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / ("log.txt" if rank == 0 else f"log.rank{rank}.txt"), encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)
