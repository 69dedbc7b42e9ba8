"""Long-tail methods for image classification in small: shapes of 20 classes, 300 to 3 training images, on a CPU.

    python benchmarks/classification_mini.py                          every method with seeds 0, 1 and 2
    python benchmarks/classification_mini.py --seeds 1 --jobs 2       a first look

Draws the images, trains and tests every experiment by the commands of a user, copies the results into the experiments'
folders and writes their comparison to benchmarks/classification_mini, without and with intervals.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from cvpods_ext.cli import mini_runs

METHODS = ("plain", "rfs", "cos_norm", "cos_norm.disalign", "balanced_softmax", "logit_adjustment")
OUT = Path(__file__).with_suffix("")
MINI = Path(__file__).resolve().parents[1] / "playground" / "mini"


def output(run: mini_runs.Run) -> Path:
    """Where the scores lie that intervals are computed from."""
    return run[0] / "outputs" / f"seed{run[1]}"


def main() -> None:
    """Run what has no results yet, then compare all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="experiments side by side (default: 1)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu", help="default: cpu")
    given = parser.parse_args()
    os.environ["PODS_DATASETS"] = str(MINI / "datasets")
    mini_runs.command("data", "synth-classes", str(MINI / "datasets"))
    folders = [MINI / f"resnet.narrow.shapes.48.{method}" for method in METHODS]
    every = mini_runs.every(folders, given.seeds)
    runs = mini_runs.missing(every, output)
    started = time.monotonic()
    mini_runs.run(runs, given.device, [], given.jobs, mini_runs.beside_config)
    results = list(map(output, every))
    mini_runs.show(results, OUT / "table.md")
    asked = ("--intervals", "--reference", folders[0].name, "--format", "markdown", "--out", str(OUT / "intervals.md"))
    mini_runs.command("compare", *asked, *map(str, results))
    print(f"{len(runs)} runs in {(time.monotonic() - started) / 60:.1f} minutes; wrote {OUT}")


if __name__ == "__main__":
    main()
