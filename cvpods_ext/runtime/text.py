"""Messages for a terminal: long lines are folded, and no character of them is obeyed. Imports no torch."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TextIO

from cvpods_ext.runtime.words import printable

WIDEST = 100  # characters of a line of prose
_NARROWEST = 20


def show_error(text: str) -> None:
    """Print a message for the user on stderr, folded to the width of the screen."""
    text, width = printable_lines(text), width_of(sys.stderr)
    print(text if width is None else folded(text, width), file=sys.stderr, flush=True)


def printable_lines(text: str) -> str:
    """`text` with every line as `words.printable` shows it; its line ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def folded(text: str, width: int) -> str:
    """Lines of at most `width` characters; words longer than that, and lines that are indented, stay whole.

    Indented lines of a message are commands, paths and lists, to be copied.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        if len(line) <= width or line.startswith(" "):
            lines.append(line)
        else:
            lines += textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def width_of(stream: TextIO) -> int | None:
    """How wide prose on `stream` should be: its terminal or COLUMNS, at most 100; None where nobody says.

    In a pipe or a scheduler's file lines stay whole, so that they can be searched.
    """
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        given = os.environ.get("COLUMNS", "")
        columns = int(given) if given.isdecimal() else 0
    return min(max(columns, _NARROWEST), WIDEST) if columns else None


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(text: str) -> str:
    """Text that a spreadsheet would take for a formula gets a quote in front, since names come from files of others.

    A carriage return, which a reader may take for the end of a row, becomes a space, and a byte of a file name that is
    no UTF-8, its escape.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return ("'" + text if text.startswith(_FORMULA) else text).replace("\r", " ")
