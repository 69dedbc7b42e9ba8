"""One self-contained HTML file: tables, and below them what the task adds.

It opens offline: style, script, data and pictures are inside, and its content policy forbids everything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from cvpods_ext.report.table import Table
from cvpods_ext.report.task_report import PagePart

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render(title: str, tables: Sequence[Table], part: PagePart | None = None, lead: str = "") -> str:
    """The page; `lead` is HTML between title and tables."""
    part = part or PagePart()
    style = files("cvpods_ext.report").joinpath("page.css").read_text(encoding="utf-8")
    data = "" if part.data is None else f'<script type="application/json" id="data">{json_in_html(part.data)}</script>'
    script = f"<script>{part.script}</script>" if part.script else ""
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><h1>{escape(title)}</h1>"
        f"{lead}{''.join(map(table_html, tables))}{part.body}{data}{script}</body></html>\n"
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair in a name has no encoding


def json_in_html(data: Any) -> str:
    """JSON that no browser takes for markup, whatever names it holds: "<!--" alone can hide the end of a script."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # U+2028 and all beyond ASCII are escaped already
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def table_html(table: Table) -> str:
    """A table under its title, its notes as a list."""
    head = "".join(
        f'<th class="words">{escape(name)}</th>' if i < table.text_columns else f"<th>{escape(name)}</th>"
        for i, name in enumerate(table.header)
    )
    rows = []
    for row in table.rows:
        cells = []
        for i, cell in enumerate(row):
            kinds = [name for name, holds in (("words", i < table.text_columns), ("best", cell.best)) if holds]
            cells.append(f'<td class="{" ".join(kinds)}">{escape(cell.text)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<h2>{escape(table.title)}</h2><div class="scroll"><table>{body}</table></div><ul>{notes}</ul>'


def figure(caption: str, svg: str) -> str:
    """A chart in a frame; several stand side by side in an element of class `charts`."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def checkboxes(name: str, values: Sequence[tuple[str, str]]) -> str:
    """Boxes, all ticked, that a script listens to by `name`: (value, text) of each."""
    boxes = "".join(
        f'<label><input type="checkbox" name="{escape(name)}" value="{escape(value)}" checked> {escape(text)}</label>'
        for value, text in values
    )
    return f"<fieldset><legend>{escape(name)}</legend>{boxes}</fieldset>"
