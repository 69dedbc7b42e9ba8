"""One table, four renderings: terminal, Markdown, CSV, LaTeX.

A cell holds what is shown and, for CSV, the exact number; `best` marks the winner of its column.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

UNMEASURED = "-"
NO_GROUND_TRUTH = "n/a"
DIGITS = 1  # of a percentage; more would show noise


@dataclass(frozen=True)
class Cell:
    """Text to show; `value` is the exact number where there is one."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A rectangle of cells: `header` names the columns, the first `text_columns` of them hold words."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.header), f"{len(row)} cells under {len(self.header)} headers"


def mark_best(rows: Sequence[Sequence[Cell]], columns: Sequence[int]) -> list[tuple[Cell, ...]]:
    """Mark the largest value of each of `columns`, ties as they are shown; a column of one number has no winner."""
    marked = [list(row) for row in rows]
    for column in columns:
        numbers = [row[column] for row in marked if row[column].value is not None]
        if len(numbers) < 2:
            continue
        highest = max(round(cell.value, DIGITS) for cell in numbers if cell.value is not None)
        for row in marked:
            cell = row[column]
            if cell.value is not None and round(cell.value, DIGITS) == highest:
                row[column] = Cell(cell.text, cell.value, best=True)
    return [tuple(row) for row in marked]


def to_terminal(table: Table) -> RichTable:
    """For a rich console; the best of a column is bold and green."""
    rendered = RichTable(title=table.title, title_justify="left", caption_justify="left", header_style="bold")
    for position, name in enumerate(table.header):
        words = position < table.text_columns
        rendered.add_column(name, justify="left" if words else "right", overflow="fold" if words else "ellipsis")
    for row in table.rows:
        rendered.add_row(*(f"[bold green]{escape(c.text)}[/]" if c.best else escape(c.text) for c in row))
    if table.notes:
        rendered.caption = escape("\n".join(table.notes))
    return rendered


def to_markdown(table: Table) -> str:
    """A pipe table under its title; the best of a column is bold."""
    lines = [f"**{_escape_markdown(table.title)}**", ""] if table.title else []
    lines.append("| " + " | ".join(map(_escape_markdown, table.header)) + " |")
    lines.append("|" + "|".join("---" if i < table.text_columns else "---:" for i in range(len(table.header))) + "|")
    for row in table.rows:
        cells = [_escape_markdown(cell.text) for cell in row]
        lines.append("| " + " | ".join(f"**{t}**" if c.best else t for t, c in zip(cells, row, strict=True)) + " |")
    if table.notes:
        lines += ["", *(f"- {_escape_markdown(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Exact numbers, one row a record; the title is a first column, so that several tables can be concatenated."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", *table.header))
    for row in table.rows:
        writer.writerow((table.title, *(c.text if c.value is None else repr(c.value) for c in row)))
    return out.getvalue()


def to_latex(table: Table) -> str:
    """A booktabs tabular; the best of a column is bold."""
    columns = "l" * table.text_columns + "r" * (len(table.header) - table.text_columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_escape_latex, table.header)) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [_escape_latex(cell.text) for cell in row]
        cells = [rf"\textbf{{{text}}}" if cell.best else text for text, cell in zip(cells, row, strict=True)]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_escape_latex(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


RENDERERS: dict[str, Callable[[Table], str]] = {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}

_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _escape_markdown(text: str) -> str:
    return re.sub(r"([|*`<>])", r"\\\1", text).replace("\n", " ")


def print_tables(tables: Sequence[Table]) -> None:
    """Show tables on stdout; into a pipe they keep their full width."""
    out = Console(width=None if sys.stdout.isatty() else 240)
    for table in tables:
        out.print(to_terminal(table))
