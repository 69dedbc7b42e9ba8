"""pods_compare: measured and published results of experiments in one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from cvpods_ext.config import Config
    from cvpods_ext.report.runs import Entry
    from cvpods_ext.report.table import Table

EXAMPLES = """\
  pods_compare                                everything below the current folder
  pods_compare ..                             all experiments of a playground
  pods_compare A B --task segm                two experiments, masks only
  pods_compare .. --metrics AP,AP50,APr       choose the columns
  pods_compare .. --format markdown --out table.md
  pods_compare .. --task segm --html report.html   curves and mistakes, one file that opens offline"""


def main() -> None:
    """Entry point of pods_compare."""
    flags = parser("pods_compare", "Show measured beside published results of experiments.", EXAMPLES)
    flags.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="searched for results.json (default: .)")
    flags.add_argument("--format", choices=("terminal", "markdown", "csv", "latex"), help="default: terminal")
    flags.add_argument("--task", choices=("bbox", "segm"), help="default: every task that was measured")
    flags.add_argument("--metrics", default="", metavar="A,B", help="columns (default: AP,APr,APc,APf or sizes)")
    flags.add_argument("--out", type=Path, metavar="FILE", help="write there; .md, .csv and .tex choose the format")
    flags.add_argument("--html", type=Path, metavar="FILE", help="write a page with curves and pictures of mistakes")
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
    if arguments.html:
        _write_page(arguments.html, entries, built, arguments.task)
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


def _write_page(out: Path, entries: Sequence[Entry], built: Sequence[Table], task: str | None) -> None:
    """Judge what lies on disk and write the HTML page of the one data set that `entries` were tested on."""
    from cvpods_ext.data import annotations, catalog
    from cvpods_ext.evaluation import ground_truth
    from cvpods_ext.report.html import render
    from cvpods_ext.report.sources import page_runs
    from cvpods_ext.runtime.files import write_text

    measured = [entry for entry in entries if entry.runs]
    datasets = sorted({entry.dataset for entry in measured})
    if len(datasets) != 1:
        raise ConfigError(
            f"--html shows experiments measured on one data set, found {datasets or 'none'}; name folders"
        )
    config, folder = _experiment_of(measured[0])
    loaded = annotations.load(catalog.resolve(config.data.test, folder))
    tasks = {name for entry in measured for run in entry.runs for name in run.metrics}
    task = task or ("segm" if "segm" in tasks else "bbox")
    gt = ground_truth.load(loaded.paths.annotations, masks=task == "segm")
    position = {image_id: k for k, image_id in enumerate(loaded.image_ids.tolist())}
    page = render(
        title=f"{datasets[0]}, {task}",
        tables=built,
        runs=page_runs(measured, gt, task),
        image_path=lambda image_id: loaded.image_path(position[image_id]),
        image_counts=_image_counts(config, folder, gt.category_ids.tolist()),
    )
    write_text(out, page)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def _experiment_of(entry: Entry) -> tuple[Config, Path]:
    """Config and folder of the experiment that a results.json came from: the nearest config.py above it."""
    from cvpods_ext.config.experiment import load_experiment

    for folder in entry.paths[0].resolve().parents:
        if (folder / "config.py").is_file():
            return load_experiment(folder).config, folder
    raise ConfigError(f"{entry.paths[0]} lies in no experiment folder, so its annotations and images cannot be found.")


def _image_counts(config: Config, folder: Path, category_ids: Sequence[int]) -> np.ndarray | None:
    """(K,) training images of every category of the test set, as the training set's facts say; None if they do not."""
    import numpy as np

    from cvpods_ext.data import catalog
    from cvpods_ext.errors import DataError

    try:
        counts = {one.id: one.image_count for one in catalog.categories(config.data.train, folder)}
    except DataError:  # the training json need not be on a machine that only tests
        return None
    known = [counts.get(identity, -1) for identity in category_ids]
    return np.array(known) if known and min(known) >= 0 else None
