"""The comparison table as an object: for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cvpods_ext.report.compare import tables
from cvpods_ext.report.runs import collect
from cvpods_ext.report.table import UNMEASURED, Table, fitted, to_markdown, to_terminal
from cvpods_ext.runtime.frames import data_frame

_WIDTH = 100


@dataclass(frozen=True)
class Comparison:
    """Tables of experiments, one for each data set and family of metrics; printed as the command prints them."""

    tables: Sequence[Table]

    def __str__(self) -> str:
        console = Console(width=_WIDTH)
        with console.capture() as captured:
            for table in self.tables:
                console.print(to_terminal(fitted(table, _WIDTH), _WIDTH))
        return captured.get()

    def rows(self) -> Iterator[dict[str, Any]]:
        """A dict for each row: its table, its texts, its exact numbers; None for what was not measured."""
        for table in self.tables:
            for row in table.rows:
                cells = (
                    cell.value if cell.value is not None else None if cell.text == UNMEASURED else cell.text
                    for cell in row
                )
                yield {"table": table.title, **dict(zip(table.header, cells, strict=True))}

    def to_markdown(self) -> str:
        """As `pods_compare --format markdown`."""
        return "\n".join(map(to_markdown, self.tables))

    def to_pandas(self) -> Any:
        """A DataFrame of `rows`; ConfigError where pandas is not installed."""
        return data_frame(list(self.rows()))


def compare(*folders: str | Path, families: Sequence[str] = (), metrics: Sequence[str] = ()) -> Comparison:
    """Measured and published results of all experiments in and below `folders`, by default the current one.

    `families` and `metrics` choose tables and columns as the flags of `pods_compare` do. Raises ConfigError.
    """
    found = collect([Path(folder) for folder in folders] or [Path()])
    return Comparison(tables(found.entries, families, metrics, found.notes))
