"""pods_demo: the whole job on synthetic photos, on a laptop: generate, train four methods, test, compare."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from cvpods_ext.cli import mini_runs
from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.runtime.outputs import check_output_folder

EXAMPLES = """\
  pods_demo                                   one seed, 20 to 30 minutes on two CPU cores
  pods_demo --seeds 3                         mean and range over three seeds
  pods_demo --seeds 3 --keep benchmarks/demo  keep the results files and the table"""

METHODS = tuple(mini_runs.PREFIX + method for method in ("plain", "rfs", "cos_norm", "cos_norm.disalign"))


def main() -> None:
    """Entry point of pods_demo."""
    flags = parser("pods_demo", "Train and compare four long-tail methods on synthetic photos; no GPU.", EXAMPLES)
    flags.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with seeds 0 to N - 1 (default: 1)")
    flags.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the results files and the table there")
    arguments = flags.parse_args()
    guarded("pods_demo", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    check_output_folder("--keep", arguments.keep)
    mini = mini_runs.mini_folder()
    folders = [mini / name for name in (mini_runs.TRUNK, *METHODS)]
    kept = mini_runs.below(arguments.keep) if arguments.keep else None
    mini_runs.run(mini_runs.every(folders, arguments.seeds), kept=kept)
    mini_runs.compare(folders, arguments.seeds, kept, arguments.keep / "table.md" if arguments.keep else None)
    picture = mini / METHODS[-1] / "outputs" / "seed0" / "pictures" / "predictions.png"
    print(
        f"\npicture of detections: {os.path.relpath(picture)}\n"
        f"finished in {(time.monotonic() - started) / 60:.1f} minutes\n\n"
        "next, with real LVIS:\n"
        "  pods_data doctor                            what is on this machine, what is missing, where to get it\n"
        "  cd playground/lvis1.0/mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.cos_norm.1x\n"
        "  pods_train --num-gpus 8; pods_test --num-gpus 8; pods_compare .."
    )
