"""pods_data doctor: what is present, missing or broken in data sets, and what mends it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import output_console
from cvpods_ext.cli.data_sets import DATASET_HELP, dataset_of
from cvpods_ext.errors import WeightsError
from cvpods_ext.runtime.text import printable_lines
from cvpods_ext.runtime.words import printable

if TYPE_CHECKING:
    from cvpods_ext.config.experiment import Experiment
    from cvpods_ext.data.findings import Finding

_MARKS = {"ok": "[green]ok[/]", "note": "[cyan]note[/]", "problem": "[red]problem[/]"}


def add_doctor(commands: argparse._SubParsersAction) -> None:
    """Add `pods_data doctor`."""
    doctor = commands.add_parser("doctor", help="what is present, missing or broken, and where to get it")
    doctor.add_argument("datasets", nargs="*", metavar="DATASET", help=DATASET_HELP)
    doctor.add_argument("--images", default="", metavar="FOLDER", help="where the image paths of a json start")
    doctor.add_argument("--dir", default=".", help="experiment folder, or where to start looking for datasets/")
    doctor.add_argument("--decode", action="store_true", help="also decode every image")
    doctor.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import catalog, doctor

    start = Path(arguments.dir)
    findings: list[Finding] = []
    if arguments.datasets or not (start / "config.py").is_file():
        chosen = [dataset_of(text, arguments.images) for text in arguments.datasets] or list(catalog.KNOWN)
        for dataset in chosen:
            findings += doctor.examine(dataset, start)
    else:
        from cvpods_ext.config.experiment import load_experiment
        from cvpods_ext.tasks.task import find

        experiment = load_experiment(start)
        chosen = []
        findings += find(experiment.config.task).examine(experiment, arguments.decode)
        findings += _weights(experiment)
    if arguments.decode and not _problems(findings):
        for dataset in chosen:
            findings += doctor.examine_pixels(dataset, start)
    findings = list(dict.fromkeys(findings))  # data sets share files
    _show_findings(findings)
    if _problems(findings):
        sys.exit(1)


def report_on(datasets: Iterable[str], start: Path) -> None:
    """Examine data sets by name, show what is found, and end with exit status 1 if there is a problem."""
    from cvpods_ext.data import doctor, segmentation, segmentation_doctor

    findings: list[Finding] = []
    for dataset in datasets:
        examine = segmentation_doctor.examine if dataset in segmentation.KNOWN else doctor.examine
        findings += examine(dataset, start)
    findings = list(dict.fromkeys(findings))
    _show_findings(findings)
    if _problems(findings):
        sys.exit(1)


def _weights(experiment: Experiment) -> list[Finding]:
    """Whether the weights that training starts from are there."""
    from cvpods_ext.data.findings import Finding
    from cvpods_ext.modeling.weights.addresses import is_address
    from cvpods_ext.modeling.weights.locate import locate
    from cvpods_ext.runtime.http import offline

    init = experiment.config.model.init
    try:
        path = locate(init, experiment.folder)
    except WeightsError as error:
        fetched = is_address(init) and not offline()  # when the training starts
        return [Finding("note" if fetched else "problem", "model.init", str(error))]
    return [Finding("ok", "model.init", f"{init} is {path}")] if path else []


def _problems(findings: Iterable[Finding]) -> int:
    return sum(finding.level == "problem" for finding in findings)


def _show_findings(findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for heading in ("", "data set", "finding"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        remedy = f"\n[bold]->[/] {escape(printable_lines(finding.remedy))}" if finding.remedy else ""
        table.add_row(
            _MARKS[finding.level], escape(printable(finding.subject)), escape(printable_lines(finding.text)) + remedy
        )
    out = output_console()
    out.print(table)
    problems = _problems(findings)
    out.print(f"problems: {problems}" if problems else "nothing is missing")
    if any("get http" in finding.remedy + finding.text for finding in findings if finding.level == "problem"):
        out.print(
            "`pods_data download NAME` fetches and unpacks lvis_v1, lvis_v0.5, coco_2017 and ade20k", markup=False
        )
