"""One table, four renderings: terminal, Markdown, CSV, LaTeX.

A cell holds what is shown and, for CSV, the exact number; `best` marks the best of its column.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from cvpods_ext.evaluation.metric_table import Metric
from cvpods_ext.runtime.text import csv_cell
from cvpods_ext.runtime.words import counted

UNMEASURED = "-"
NO_GROUND_TRUTH = "n/a"


@dataclass(frozen=True)
class Cell:
    """Text to show; `value` is the exact number where there is one, `low` and `high` are its interval or range."""

    text: str
    value: float | None = None
    best: bool = False
    low: float | None = None
    high: float | None = None


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


def mark_best(rows: Sequence[Sequence[Cell]], metrics: Mapping[int, Metric]) -> list[tuple[Cell, ...]]:
    """Mark the best value of each column of `metrics` (position -> metric) where its range is beyond all others.

    The smallest of an error is the best. A number without a range, as of a single run, is never marked: nobody knows
    how certain it is. A column of one number has no best.
    """
    marked = [list(row) for row in rows]
    for column, metric in metrics.items():
        cells = [row[column] for row in marked if row[column].value is not None]
        if len(cells) > 1 and metric.higher_is_better is not None:
            for row in marked:
                others = [cell for cell in cells if cell is not row[column]]
                row[column] = replace(row[column], best=_is_beyond(row[column], others, metric.higher_is_better))
    return [tuple(row) for row in marked]


def _is_beyond(cell: Cell, others: Sequence[Cell], higher: bool) -> bool:
    """Whether the whole range of a cell is better than the ranges of all `others`, of single numbers the number."""
    if cell.low is None or cell.high is None:
        return False
    if higher:
        return all(
            cell.low > high for one in others if (high := one.value if one.high is None else one.high) is not None
        )
    return all(cell.high < low for one in others if (low := one.value if one.low is None else one.low) is not None)


def to_terminal(table: Table, width: int) -> Group:
    """For a rich console of `width` characters; the best of a column is bold and green.

    Numbers keep their width. Names, which are long, are folded behind dots where the screen is narrow.
    """
    rendered = RichTable(title=table.title, title_justify="left", header_style="bold")
    rendered.box, rendered.padding, rendered.show_edge = SIMPLE, (0, 1, 0, 0), False
    widths = [max(map(len, column)) for column in _texts(table)]
    excess = _width(widths) - width
    if excess > 0 and table.text_columns:
        widths[0] = max(widths[0] - excess, _NARROWEST_NAME)
    for position, name in enumerate(table.header):
        justify: Literal["left", "right"] = "left" if position < table.text_columns else "right"
        rendered.add_column(escape(name), justify=justify, width=widths[position], overflow="fold")
    for row in table.rows:
        texts = [escape(_folded(row[0].text, widths[0]) if table.text_columns else _shown(row[0]))]
        texts += [escape(_shown(cell)) for cell in row[1:]]
        rendered.add_row(*(f"[bold green]{text}[/]" if c.best else text for text, c in zip(texts, row, strict=True)))
    return Group(rendered, *(Text(note, style="italic") for note in table.notes), "")


def fitted(table: Table, width: int) -> Table:
    """The table with less text if it is wider than a screen of `width` characters.

    What all names begin and end with is said once, below, and headings are abbreviated.
    """
    if _width([max(map(len, column)) for column in _texts(table)]) <= width:
        return table
    header = tuple(name.replace("published ", "publ. ") for name in table.header)
    full = [row[0].text for row in table.rows]
    start, end = _shared_ends(full)
    if len(full) < 2 or not start + end:
        return replace(table, header=header)
    short = short_names(full)
    rows = tuple((replace(row[0], text=text), *row[1:]) for text, row in zip(short, table.rows, strict=True))
    left_out = [f"begin with {'.'.join(start)}."] if start else []
    left_out += [f"end in .{'.'.join(end)}"] if end else []
    return replace(table, header=header, rows=rows, notes=(f"names {' and '.join(left_out)}", *table.notes))


def short_names(names: Sequence[str]) -> list[str]:
    """The names without the words between dots that all begin or end with; "…" stands where some are left out."""
    start, end = _shared_ends(names)
    if len(names) < 2 or not start + end:
        return list(names)
    words = [name.split(".") for name in names]
    short = [".".join(name[len(start) : len(name) - len(end)]) for name in words]
    return [f"{'…' if start else ''}{text}{'…' if end else ''}" for text in short]


def _shared_ends(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that all names begin with, and those that all end with; something of every name remains."""
    words = [name.split(".") for name in names]
    start = _shared([name[:-1] for name in words])
    return start, _shared([name[len(start) + 1 :][::-1] for name in words])[::-1]


def _shared(names: Sequence[Sequence[str]]) -> list[str]:
    """The words that all names begin with."""
    return [words[0] for words in itertools.takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))]


def measured_only(table: Table) -> Table:
    """The table without rows and columns that hold no number, where some hold one; a note counts the rows."""
    numbers = range(table.text_columns, len(table.header))

    def is_empty(cell: Cell) -> bool:
        return cell.value is None and cell.text == UNMEASURED

    rows = [row for row in table.rows if not all(is_empty(row[i]) for i in numbers)]
    if not rows:
        return table
    kept = [i for i in range(len(table.header)) if i < table.text_columns or not all(is_empty(row[i]) for row in rows)]
    missing = len(table.rows) - len(rows)
    note = (f"not shown: {counted(missing, 'experiment')} without numbers; --wide shows all",) if missing else ()
    return replace(
        table,
        header=tuple(table.header[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        notes=(*table.notes, *note),
    )


def _texts(table: Table) -> list[list[str]]:
    """The lines of each column, header included; words are broken in headers, numbers before their range."""
    columns = [name.split() if i >= table.text_columns else [name] for i, name in enumerate(table.header)]
    for row in table.rows:
        for column, cell in zip(columns, row, strict=True):
            column += _shown(cell).split("\n")
    return columns


def _shown(cell: Cell) -> str:
    """A number and its range in brackets below each other, anything else in one line."""
    return cell.text.replace(" [", "\n[") if cell.value is not None else cell.text


def _folded(name: str, width: int) -> str:
    """A name in lines of at most `width` characters if dots, underscores and spaces allow it."""
    lines = [""]
    for part in re.findall(r"[^._ ]*[._ ]*", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _width(widths: Sequence[int]) -> int:
    """Of a whole table: columns are two characters apart."""
    return sum(widths) + 2 * len(widths)


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


def to_csv(*tables: Table) -> str:
    """Exact numbers, one row a record, one header for all `tables`: their titles are the first column.

    A column with intervals or ranges is followed by their ends, "<name> low" and "<name> high". What a table does not
    have stays empty.
    """
    columns: dict[str, None] = {}
    records = []
    for table in tables:
        ranged = {i for i in range(len(table.header)) if any(row[i].low is not None for row in table.rows)}
        for i, name in enumerate(table.header):
            columns |= dict.fromkeys((name, f"{name} low", f"{name} high") if i in ranged else (name,))
        for row in table.rows:
            record = {"": _escape_csv(table.title)}
            for i, (name, cell) in enumerate(zip(table.header, row, strict=True)):
                record[name] = _escape_csv(cell.text) if cell.value is None else repr(cell.value)
                if i in ranged and cell.low is not None:
                    record |= {f"{name} low": repr(cell.low), f"{name} high": repr(cell.high)}
            records.append(record)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", *map(_escape_csv, columns)))
    writer.writerows([record.get(name, "") for name in ("", *columns)] for record in records)
    return out.getvalue()


def _escape_csv(text: str) -> str:
    return text if text == UNMEASURED else csv_cell(text)


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


def _each(render: Callable[[Table], str]) -> Callable[..., str]:
    return lambda *tables: "\n".join(map(render, tables))


RENDERERS: dict[str, Callable[..., str]] = {"markdown": _each(to_markdown), "csv": to_csv, "latex": _each(to_latex)}

_NARROWEST_NAME = 12
_PIPE = 240  # characters of a line
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
    """Show tables on stdout; into a pipe they keep their full width, unless COLUMNS says another."""
    given = os.environ.get("COLUMNS", "")
    out = Console() if sys.stdout.isatty() or given.isdecimal() else Console(width=_PIPE)
    for table in tables:
        out.print(to_terminal(fitted(table, out.width), out.width))
