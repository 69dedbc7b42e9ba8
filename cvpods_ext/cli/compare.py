"""pods_compare: measured and published results of experiments in one table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cvpods_ext.cli.common import guarded, parser

EXAMPLES = """\
  pods_compare                                everything below the current folder
  pods_compare ..                             all experiments of a playground
  pods_compare A B --task segm                two experiments, masks only
  pods_compare .. --metrics AP,AP50,APr       choose the columns
  pods_compare .. --format markdown --out table.md"""


def main() -> None:
    """Entry point of pods_compare."""
    flags = parser("pods_compare", "Show measured beside published results of experiments.", EXAMPLES)
    flags.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="searched for results.json (default: .)")
    flags.add_argument("--format", choices=("terminal", "markdown", "csv", "latex"), help="default: terminal")
    flags.add_argument("--task", choices=("bbox", "segm"), help="default: every task that was measured")
    flags.add_argument("--metrics", default="", metavar="A,B", help="columns (default: AP,APr,APc,APf or sizes)")
    flags.add_argument("--out", type=Path, metavar="FILE", help="write there; .md, .csv and .tex choose the format")
    arguments = flags.parse_args()
    guarded("pods_compare", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.report.compare import tables
    from cvpods_ext.report.runs import collect
    from cvpods_ext.report.table import RENDERERS, print_tables
    from cvpods_ext.runtime.files import write_text

    entries = collect(arguments.folders or [Path()])
    metrics = [name for name in arguments.metrics.split(",") if name]
    built = tables(entries, [arguments.task] if arguments.task else [], metrics)
    style = arguments.format or _format_of(arguments.out)
    if style == "terminal" and arguments.out is None:
        print_tables(built)
        return
    text = "\n".join(RENDERERS["markdown" if style == "terminal" else style](table) for table in built)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        write_text(arguments.out, text)


def _format_of(out: Path | None) -> str:
    return {".md": "markdown", ".csv": "csv", ".tex": "latex"}.get(out.suffix if out else "", "terminal")
