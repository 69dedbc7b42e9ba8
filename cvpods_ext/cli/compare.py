"""pods_compare: measured and published results of experiments in one table, with intervals and an HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.errors import ConfigError

if TYPE_CHECKING:
    from cvpods_ext.report.runs import Entry
    from cvpods_ext.report.table import Table
    from cvpods_ext.report.task_report import PagePart, Request

EXAMPLES = """\
  pods_compare                                everything below the current folder
  pods_compare ..                             all experiments of a playground
  pods_compare A B --intervals                is B better than A? intervals, differences, a verdict
  pods_compare A B --categories all.csv       every category, those that got worse first
  pods_compare .. --task FAMILY --metrics M,N choose the family of metrics and the columns
  pods_compare .. --format markdown --out table.md
  pods_compare .. --html report.html          curves and pictures of errors, one file that opens offline"""

FORMATS = {".md": "markdown", ".csv": "csv", ".tex": "latex"}  # by the ending of the file


def main() -> None:
    """Entry point of pods_compare."""
    from cvpods_ext.report.task_report import known_reports

    flags = parser("pods_compare", "Show measured beside published results of experiments.", EXAMPLES)
    flags.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="searched for results.json (default: .)")
    flags.add_argument("--format", choices=("terminal", "markdown", "csv", "latex"), help="default: terminal")
    flags.add_argument("--task", default="", metavar="FAMILY", help="family of metrics (default: all measured ones)")
    flags.add_argument("--metrics", default="", metavar="A,B", help="columns (default: the usual ones of the family)")
    flags.add_argument("--out", type=Path, metavar="FILE", help="write there; .md, .csv and .tex choose the format")
    flags.add_argument("--wide", action="store_true", help="on the terminal, also rows and columns without numbers")
    flags.add_argument("--intervals", action="store_true", help="resample the predictions on disk: how sure is it?")
    flags.add_argument(
        "--reference",
        default="",
        metavar="NAME",
        help="intervals of differences to this row (default: the plain model, else the first)",
    )
    flags.add_argument("--resamples", type=int, default=1000, metavar="N", help="for --intervals (default: 1000)")
    flags.add_argument("--html", type=Path, metavar="FILE", help="write a page, with intervals and errors")
    own_flags = {}
    for task, report in known_reports().items():
        own_flags |= dict.fromkeys(report.add_flags(flags.add_argument_group(f"for results of {task}")), task)
    arguments = flags.parse_args()
    guarded("pods_compare", lambda: _run(arguments, own_flags))


def _run(arguments: argparse.Namespace, own_flags: Mapping[str, str]) -> None:
    """`own_flags` are the flags that some tasks have for themselves: name in `arguments` -> task."""
    from cvpods_ext.report.compare import tables
    from cvpods_ext.report.runs import collect
    from cvpods_ext.report.task_report import find
    from cvpods_ext.runtime.files import write_text
    from cvpods_ext.runtime.outputs import check_output_file

    if arguments.resamples < 2:
        raise ConfigError(f"--resamples must be at least 2, got {arguments.resamples}")
    check_output_file("--out", arguments.out, () if arguments.format else (*FORMATS,), [arguments.html])
    check_output_file("--html", arguments.html, (".html", ".htm"))
    found = collect(arguments.folders or [Path()])
    check_output_file("--out", arguments.out, reads=[path for entry in found.entries for path in entry.paths])
    if arguments.reference:
        _require_row(arguments.reference, found.entries)
    metrics = [name for name in arguments.metrics.split(",") if name]
    built = tables(found.entries, [arguments.task] if arguments.task else [], metrics, found.notes)
    given = {name: task for name, task in own_flags.items() if getattr(arguments, name) is not None}
    if arguments.intervals or arguments.reference or arguments.html or given:
        request = _request(found.entries, arguments, given)
        details = find(request.entries[0].task).open(request)
        built += details.intervals()
        if arguments.html:
            write_text(arguments.html, _page(request, built, details.page()))
            print(f"{arguments.html}: {arguments.html.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    _show(built, arguments.format or _format_of(arguments.out), arguments.out, arguments.wide)


def _page(request: Request, built: Sequence[Table], part: PagePart) -> str:
    """The page of a request: its picture, the tables, what the task adds, and what the runs were."""
    from dataclasses import replace

    from cvpods_ext.report.html import render, table_html
    from cvpods_ext.report.interval_tables import DIFFERENCES, INTERVALS
    from cvpods_ext.report.overview import overview
    from cvpods_ext.report.run_details import loss_curves, runs_table

    values = next((one for one in built if one.title.endswith(INTERVALS)), built[0])
    differences = next((one for one in built if DIFFERENCES in one.title), None)
    runs = loss_curves(request.entries) + table_html(runs_table(request.entries))
    return render(request.title, built, replace(part, body=part.body + runs), lead=overview(values, differences))


def _require_row(name: str, entries: Sequence[Entry]) -> None:
    """ConfigError unless a measured row of the comparison is called `name`."""
    from cvpods_ext.evaluation.metric_table import nearest
    from cvpods_ext.report.runs import labels

    known = labels([entry for entry in entries if entry.runs])
    if name not in known:
        raise ConfigError(f"--reference {name!r} is none of the measured experiments: {nearest(name, known)}")


def _request(entries: Sequence[Entry], arguments: argparse.Namespace, given: Mapping[str, str]) -> Request:
    """What the report of the task is asked; `given` are flags of tasks, each with its task."""
    from cvpods_ext.report.task_report import request_for

    options = {name: getattr(arguments, name) for name in given}
    asked = {"reference": arguments.reference, "resamples": arguments.resamples, "options": options}
    request = request_for(entries, arguments.task, **asked)
    task = request.entries[0].task
    if foreign := [f"--{name}" for name, owner in given.items() if owner != task]:
        raise ConfigError(f"{' and '.join(foreign)} cannot be used for results of {task}")
    return request


def _show(tables: Sequence[Table], style: str, out: Path | None, wide: bool) -> None:
    from cvpods_ext.report.table import RENDERERS, measured_only, print_tables
    from cvpods_ext.runtime.files import write_text

    if style == "terminal" and out is None:
        print_tables(tables if wide else list(map(measured_only, tables)))
        return
    text = RENDERERS["markdown" if style == "terminal" else style](*tables)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def _format_of(out: Path | None) -> str:
    return FORMATS.get(out.suffix if out else "", "terminal")
