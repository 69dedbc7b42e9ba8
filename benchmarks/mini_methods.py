"""What the benchmarks of small methods share: train and test folders of playground/mini, compare with intervals."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cvpods_ext.cli import mini_runs
from cvpods_ext.cli.jobs import command

MINI = Path(__file__).resolve().parents[1] / "playground" / "mini"


def output(run: mini_runs.Run) -> Path:
    """Where the predictions lie that intervals are computed from."""
    return run[0] / "outputs" / f"seed{run[1]}"


def main(doc: str, prefix: str, methods: Sequence[str], prepare: Callable[[Path], None], out: Path) -> None:
    """Run what is not on disk, copy results into the experiments' folders, write tables to the folder `out`.

    `prepare` draws the data below the folder that it is given; the first of `methods` is what others are compared with.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="experiments side by side (default: 1)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu", help="default: cpu")
    given = parser.parse_args()
    os.environ["PODS_DATASETS"] = str(MINI / "datasets")
    prepare(MINI / "datasets")
    folders = [MINI / f"{prefix}{method}" for method in methods]
    every = mini_runs.every(folders, given.seeds)
    runs = mini_runs.missing(every, output)
    started = time.monotonic()
    mini_runs.run(runs, given.device, [], given.jobs, mini_runs.beside_config)
    results = list(map(output, every))
    mini_runs.show(results, out / "table.md")
    asked = ("--intervals", "--reference", folders[0].name, "--format", "markdown", "--out", str(out / "intervals.md"))
    command("compare", *asked, *map(str, results))
    print(f"{len(runs)} runs in {(time.monotonic() - started) / 60:.1f} minutes; wrote {out}")
