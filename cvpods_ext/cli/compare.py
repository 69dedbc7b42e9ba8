"""pods_compare: measured and published results of experiments in one table, with intervals and an HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from cvpods_ext.config import Config
    from cvpods_ext.data.annotations.annotations import Annotations
    from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
    from cvpods_ext.evaluation.detection.protocol import Criteria
    from cvpods_ext.report.runs import Entry
    from cvpods_ext.report.table import Table

EXAMPLES = """\
  pods_compare                                everything below the current folder
  pods_compare ..                             all experiments of a playground
  pods_compare A B --task segm --intervals    is B better than A? intervals, differences, a verdict
  pods_compare A B --iou 0.3 --area 0 1024    the same at an IoU and for objects of a size in pixels
  pods_compare .. --metrics AP,AP50,APr       choose the columns
  pods_compare .. --format markdown --out table.md
  pods_compare .. --html report.html          curves and pictures of mistakes, one file that opens offline"""


def main() -> None:
    """Entry point of pods_compare."""
    flags = parser("pods_compare", "Show measured beside published results of experiments.", EXAMPLES)
    flags.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="searched for results.json (default: .)")
    flags.add_argument("--format", choices=("terminal", "markdown", "csv", "latex"), help="default: terminal")
    flags.add_argument("--task", metavar="FAMILY", help="family of metrics (default: all that were measured)")
    flags.add_argument("--metrics", default="", metavar="A,B", help="columns (default: AP,APr,APc,APf or sizes)")
    flags.add_argument("--out", type=Path, metavar="FILE", help="write there; .md, .csv and .tex choose the format")
    flags.add_argument("--intervals", action="store_true", help="resample the detections on disk: how sure is it?")
    flags.add_argument("--iou", type=float, nargs="+", metavar="T", help="intervals of the AP at these IoUs")
    flags.add_argument(
        "--area", type=float, nargs=2, metavar=("LOW", "HIGH"), help="intervals for objects of this size in pixels"
    )
    flags.add_argument("--reference", default="", metavar="NAME", help="compare with this one (default: the first)")
    flags.add_argument("--resamples", type=int, default=1000, metavar="N", help="for --intervals (default: 1000)")
    flags.add_argument("--html", type=Path, metavar="FILE", help="write a page, with intervals and mistakes")
    arguments = flags.parse_args()
    guarded("pods_compare", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.report.compare import tables
    from cvpods_ext.report.runs import collect
    from cvpods_ext.report.table import RENDERERS, print_tables
    from cvpods_ext.runtime.files import write_text

    if arguments.resamples < 2:
        raise ConfigError(f"--resamples must be at least 2, got {arguments.resamples}")
    criteria = _criteria(arguments)
    found = collect(arguments.folders or [Path()])
    entries = found.entries
    metrics = [name for name in arguments.metrics.split(",") if name]
    built = tables(entries, [arguments.task] if arguments.task else [], metrics, found.notes)
    if arguments.intervals or arguments.html or criteria:
        sources = _open_sources(entries, arguments.task)
        built += _certainty(sources, arguments.reference, arguments.resamples, criteria)
        if arguments.html:
            _write_page(arguments.html, sources, built)
    style = arguments.format or _format_of(arguments.out)
    if style == "terminal" and arguments.out is None:
        print_tables(built)
        return
    text = "\n".join(RENDERERS["markdown" if style == "terminal" else style](table) for table in built)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        write_text(arguments.out, text)


def _criteria(arguments: argparse.Namespace) -> Criteria | None:
    """What --iou and --area ask for, None for the official criteria."""
    if arguments.iou is None and arguments.area is None:
        return None
    from cvpods_ext.evaluation.detection.protocol import AREA_RANGES, OFFICIAL, Criteria

    thresholds = tuple(sorted(arguments.iou)) if arguments.iou else OFFICIAL.thresholds
    return Criteria(thresholds, (tuple(arguments.area) if arguments.area else AREA_RANGES[0],))


def _format_of(out: Path | None) -> str:
    return {".md": "markdown", ".csv": "csv", ".tex": "latex"}.get(out.suffix if out else "", "terminal")


@dataclass(frozen=True)
class _Sources:
    """The one data set that measured entries share, and the config of the first experiment."""

    entries: list[Entry]
    task: str
    config: Config
    folder: Path
    annotations: Annotations
    gt: GroundTruth

    @property
    def title(self) -> str:
        """Data set and task."""
        return f"{self.entries[0].dataset} {self.task}"


def _open_sources(entries: Sequence[Entry], task: str | None) -> _Sources:
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations import annotations
    from cvpods_ext.evaluation.detection import ground_truth

    measured = [entry for entry in entries if entry.runs]
    datasets = sorted({entry.dataset for entry in measured})
    if len(datasets) != 1:
        raise ConfigError(
            f"--intervals and --html need experiments measured on one data set, found {datasets or 'none'}; "
            "name their folders"
        )
    config, folder = _experiment_of(measured[0])
    loaded = annotations.load(catalog.resolve(config.data.test, folder))
    tasks = {name for entry in measured for run in entry.runs for name in run.metrics}
    task = task or ("segm" if "segm" in tasks else "bbox")
    gt = ground_truth.load(loaded.paths.annotations, masks=task == "segm")
    return _Sources(measured, task, config, folder, loaded, gt)


def _experiment_of(entry: Entry) -> tuple[Config, Path]:
    """Config and folder of the experiment that a results.json came from: the nearest config.py above it."""
    from cvpods_ext.config.experiment import load_experiment

    for folder in entry.paths[0].resolve().parents:
        if (folder / "config.py").is_file():
            return load_experiment(folder).config, folder
    raise ConfigError(f"{entry.paths[0]} lies in no experiment folder, so its annotations and images cannot be found.")


def _certainty(sources: _Sources, reference: str, resamples: int, criteria: Criteria | None) -> list[Table]:
    from cvpods_ext.report.certainty import certainty_tables
    from cvpods_ext.report.sources import candidates

    found = candidates(sources.entries, sources.gt, sources.task, criteria)
    if not found:
        raise DataError("none of these results has its detections on disk any more; run pods_test again")
    title = f"{sources.title}, {criteria.describe()}" if criteria else sources.title
    return certainty_tables(title, found, reference, resamples, sources.gt.federated)


def _write_page(out: Path, sources: _Sources, built: Sequence[Table]) -> None:
    from cvpods_ext.report.html import render
    from cvpods_ext.report.sources import page_runs
    from cvpods_ext.runtime.files import write_text

    loaded = sources.annotations
    position = {image_id: k for k, image_id in enumerate(loaded.image_ids.tolist())}
    page = render(
        title=sources.title,
        tables=built,
        runs=page_runs(sources.entries, sources.gt, sources.task),
        image_path=lambda image_id: loaded.image_path(position[image_id]),
        image_counts=_image_counts(sources.config, sources.folder, sources.gt.category_ids.tolist()),
    )
    write_text(out, page)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def _image_counts(config: Config, folder: Path, category_ids: Sequence[int]) -> np.ndarray | None:
    """(K,) training images of every category of the test set, as the training set's facts say; None if they do not."""
    import numpy as np

    from cvpods_ext.data import catalog

    try:
        counts = {one.id: one.image_count for one in catalog.categories(config.data.train, folder)}
    except DataError:  # the training json need not be on a machine that only tests
        return None
    known = [counts.get(identity, -1) for identity in category_ids]
    return np.array(known) if known and min(known) >= 0 else None
