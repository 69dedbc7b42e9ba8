"""pods_demo: the whole job on synthetic photos, on a laptop: generate, train four methods, test, compare."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cvpods_ext
from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.errors import ConfigError

EXAMPLES = """\
  pods_demo                                   one seed, about ten minutes on two CPU cores
  pods_demo --seeds 3                         mean and range over three seeds
  pods_demo --seeds 3 --keep benchmarks/demo  keep the results files and the table"""

TRUNK = "mask_rcnn.narrow.fpn64.box.96.trunk"
METHODS = (
    "mask_rcnn.narrow.fpn64.box.96.plain",
    "mask_rcnn.narrow.fpn64.box.96.rfs",
    "mask_rcnn.narrow.fpn64.box.96.cos_norm",
    "mask_rcnn.narrow.fpn64.box.96.cos_norm.disalign",
)


def main() -> None:
    """Entry point of pods_demo."""
    flags = parser("pods_demo", "Train and compare four long-tail methods on synthetic photos, without a GPU.", EXAMPLES)
    flags.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with seeds 0 to N - 1 (default: 1)")
    flags.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the results files and the table there")
    arguments = flags.parse_args()
    guarded("pods_demo", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    mini = Path(cvpods_ext.__file__).resolve().parents[1] / "playground" / "mini"
    if not mini.is_dir():
        raise ConfigError(f"{mini} is absent: the demo needs a checkout of the project, installed with pip install -e .")
    os.environ["PODS_DATASETS"] = str(mini / "datasets")
    if not (mini / "datasets" / "lvis" / "lvis_box_val.json").is_file():
        _command("data", "synth", str(mini / "datasets"))
    for seed in range(arguments.seeds):
        for name in (TRUNK, *METHODS):
            _experiment(mini / name, seed)
    results = [mini / name / "outputs" / f"seed{seed}" for name in METHODS for seed in range(arguments.seeds)]
    table = ["--format", "markdown", *map(str, results)]
    _command("compare", *map(str, results))
    if arguments.keep:
        _keep(results, arguments.keep)
        _command("compare", "--out", str(arguments.keep / "table.md"), *table)
    picture = mini / METHODS[-1] / "outputs" / "seed0" / "pictures" / "detections.png"
    print(
        f"\npicture of detections: {os.path.relpath(picture)}\n"
        f"finished in {(time.monotonic() - started) / 60:.1f} minutes\n\n"
        "next, with real LVIS:\n"
        "  pods_data doctor                            what is on this machine, what is missing, where to get it\n"
        "  cd playground/lvis1.0/mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.cos_norm.1x\n"
        "  pods_train --num-gpus 8; pods_test --num-gpus 8; pods_compare .."
    )


def _experiment(folder: Path, seed: int) -> None:
    """Train (or continue) and test one experiment; the trunk is only trained."""
    overrides = [f"seed={seed}", f"output=outputs/seed{seed}"]
    where = ["--dir", str(folder), "--device", "cpu"]
    first = next((name for name in (*METHODS, TRUNK) if _starts_from(folder, name)), None)
    if first:
        overrides.append(f"model.init=../{first}/outputs/seed{seed}/model_final.pth")
    _command("train", *where, "--resume", *overrides)
    if folder.name != TRUNK:
        _command("test", *where, *overrides)


def _starts_from(folder: Path, name: str) -> bool:
    return f'"experiment:{name}"' in (folder / "config.py").read_text(encoding="utf-8")


def _command(command: str, *arguments: str) -> None:
    """Run one of our commands as a user would, showing it first."""
    print(f"\n$ pods_{command} {shlex.join(arguments)}", flush=True)
    code = f"from cvpods_ext.cli.{command} import main; main()"
    run = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    if run.returncode:
        sys.exit(run.returncode)


def _keep(results: list[Path], target: Path) -> None:
    for folder in results:
        destination = target / folder.parent.parent.name / folder.name
        destination.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "results.json", destination / "results.json")
