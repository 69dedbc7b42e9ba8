"""Progress bars with an ETA for everything that takes more than a few seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

T = TypeVar("T")


def console() -> Console:
    """A console on stderr: stdout stays free for tables and JSON."""
    return Console(file=sys.stderr)


def progress_bar(disable: bool = False) -> Progress:
    """A bar with count, elapsed and remaining time; silent when stderr is not a terminal."""
    out = console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=out,
        transient=False,
        disable=disable or not out.is_terminal,
    )


def byte_bar(disable: bool = False) -> Progress:
    """A bar of bytes with speed and remaining time; silent when stderr is not a terminal."""
    out = console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=out,
        disable=disable or not out.is_terminal,
    )


def track(items: Iterable[T], description: str, total: int | None = None, disable: bool = False) -> Iterator[T]:
    """Yield `items` under a progress bar."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with progress_bar(disable) as bar:
        task = bar.add_task(description, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)
