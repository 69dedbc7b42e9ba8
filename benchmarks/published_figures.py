"""Every figure that we cite, with its source: docs/published.md from cvpods_ext/report/published_results.json.

    python benchmarks/published_figures.py             write docs/published.md
    python benchmarks/published_figures.py --check     exit with status 1 if it would change

Cards and tables of the experiments show the same figures; here are also those of which no experiment folder exists.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from cvpods_ext.report import published
from cvpods_ext.report.published import Published
from cvpods_ext.report.table import Cell, Table, to_markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "published.md"
HEADING = """# Published figures

Written by `python benchmarks/published_figures.py`; nothing here is measured by us. A dash is a figure that the source
does not give. Where a source's overview contradicts its own details by more than rounding, the last column says so.
"""


Row = tuple[str, str, Published]  # name, data set


def rows() -> list[Row]:
    """Every record once: under the name of our folder if there is one, else under that of the source."""
    found: list[Row] = []
    for name, by_dataset in published.load().items():
        for dataset, record in by_dataset.items():
            same = [i for i, (*_, known) in enumerate(found) if known == record]  # folders come after what they name
            if same:
                found[same[0]] = (name, dataset, record)
            else:
                found.append((name, dataset, record))
    return found


def by_source() -> Mapping[str, list[Row]]:
    """Source and address -> its rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows():
        record = row[2]
        groups.setdefault(f"{record.source.split(', model ')[0]} ({record.url})", []).append(row)
    return groups


def table(rows: list[Row]) -> Table:
    """One row for each record and family of metrics."""
    metrics = list(dict.fromkeys(name for *_, one in rows for figures in one.metrics.values() for name in figures))
    lines = []
    for name, dataset, record in rows:
        cost = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in record.cost.items())
        for family, figures in record.metrics.items():
            note = "; ".join(text for text in record.disagreements() if f" {family} " in text)
            values = (Cell(f"{figures[metric]:g}" if metric in figures else "-") for metric in metrics)
            lines.append((Cell(name), Cell(dataset), Cell(family), *values, Cell(cost or "-"), Cell(note or "-")))
    header = ("experiment", "data", "family", *metrics, "cost", "overview")
    return Table("", header, tuple(lines), text_columns=3)


def page() -> str:
    """The whole page."""
    parts = [f"## {source}\n\n{to_markdown(table(rows))}" for source, rows in by_source().items()]
    return "\n".join([HEADING, *parts])


def main() -> None:
    """Write or check."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--check", action="store_true")
    if flags.parse_args().check:
        sys.exit(int(PAGE.read_text(encoding="utf-8") != page()))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
