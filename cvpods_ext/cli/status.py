"""pods_status: the runs of a playground at a glance. Imports no torch."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from cvpods_ext.cli.common import guarded, output_console, parser

EXAMPLES = """\
  pods_status                                 runs below the current folder
  pods_status ..                              runs of a whole playground
  pods_status .. --watch 10                   again every ten seconds"""


def main() -> None:
    """Entry point of pods_status."""
    flags = parser("pods_status", "Show progress, last losses and time left of runs.", EXAMPLES)
    flags.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="searched for runs (default: .)")
    flags.add_argument("--watch", type=float, metavar="SECONDS", help="show again and again")
    arguments = flags.parse_args()
    guarded("pods_status", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from rich.markup import escape
    from rich.table import Table

    from cvpods_ext.report.status import RunStatus, find_runs
    from cvpods_ext.runtime.words import printable

    def row(run: RunStatus) -> list[str]:
        record = run.record
        waiting = record.get("data_time", 0.0) / record["time"] if record.get("time") else None
        return [
            escape(printable(os.path.relpath(run.folder))),
            run.state,
            f"{run.iteration:,} / {run.total:,} ({run.iteration / max(run.total, 1):.0%})",
            "-" if run.eta is None else _duration(run.eta),
            f"{record['total_loss']:.3f}" if "total_loss" in record else "-",
            f"{record['time']:.3g} s" if "time" in record else "-",
            "-" if waiting is None else f"{waiting:.0%}",
            f"{_duration(run.age)} ago",
        ]

    console = output_console(piped=200)
    while True:
        table = Table(box=None)
        table.add_column("run", overflow="fold")
        table.add_column("state")
        for heading in ("iterations", "left", "loss", "step", "waits for data", "last record"):
            table.add_column(heading, justify="right")
        for folder in arguments.folders or [Path()]:
            for run in find_runs(folder):
                table.add_row(*row(run))
        if table.row_count:
            console.print(table)
        else:
            console.print("no run here: none of the folders below holds the config.json of a pods_train output")
        if not arguments.watch:
            return
        time.sleep(arguments.watch)
        console.clear()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours}:{minutes:02d}:{seconds:02d}"
