"""What pods_demo and pods_zoo share: mini experiments trained and tested one after another, as a user would."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cvpods_ext
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError

PREFIX = "mask_rcnn.narrow.fpn64.box.96."
TRUNK = PREFIX + "trunk"


def mini_folder() -> Path:
    """The folder of the mini experiments, with LVIS in a box beside them, drawn if it is not there yet."""
    mini = Path(cvpods_ext.__file__).resolve().parents[1] / "playground" / "mini"
    if not mini.is_dir():
        raise ConfigError(f"{mini} is absent: this needs a checkout of the project, installed with pip install -e .")
    os.environ["PODS_DATASETS"] = str(mini / "datasets")
    if not (mini / "datasets" / "lvis" / "lvis_box_val.json").is_file():
        command("data", "synth", str(mini / "datasets"))
    return mini


def run(folders: Sequence[Path], seeds: int, device: str = "cpu", overrides: Sequence[str] = ()) -> list[Path]:
    """Train (or continue) and test the experiments for seeds 0 to `seeds` - 1; returns the folders of their results.

    `folders` come in an order in which a first stage precedes its second; the trunk is only trained.
    """
    for seed in range(seeds):
        for folder in folders:
            _experiment(folder, seed, device, overrides)
    return [folder / "outputs" / f"seed{seed}" for folder in folders if folder.name != TRUNK for seed in range(seeds)]


def compare(results: Sequence[Path], keep: Path | None) -> None:
    """Show the table; with `keep` also copy every results.json and the table there."""
    command("compare", *map(str, results))
    if keep:
        for folder in results:
            destination = keep / folder.parent.parent.name / folder.name
            destination.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "results.json", destination / "results.json")
        command("compare", "--out", str(keep / "table.md"), "--format", "markdown", *map(str, results))


def first_stage(folder: Path) -> str:
    """The name of the experiment whose weights `folder` starts from, "" if there is none."""
    init = load_experiment(folder).config.model.init
    return init.removeprefix("experiment:") if init.startswith("experiment:") else ""


def is_calibration(folder: Path) -> bool:
    """Whether the experiment changes a trained model at test time only: its net uses modeling.posthoc."""
    return "cvpods_ext.modeling.posthoc" in (folder / "net.py").read_text(encoding="utf-8")


def command(name: str, *arguments: str) -> None:
    """Run one of our commands as a user would, showing it first."""
    print(f"\n$ pods_{name} {shlex.join(arguments)}", flush=True)
    code = f"from cvpods_ext.cli.{name} import main; main()"
    finished = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def _experiment(folder: Path, seed: int, device: str, overrides: Sequence[str]) -> None:
    settings = [f"seed={seed}", f"output=outputs/seed{seed}", *overrides]
    where = ["--dir", str(folder), "--device", device]
    first = first_stage(folder)
    weights = folder.parent / first / "outputs" / f"seed{seed}" / "model_final.pth"
    if is_calibration(folder):
        command("test", *where, "--weights", str(weights), *settings)
        return
    if first:
        settings.append(f"model.init={os.path.relpath(weights, folder)}")
    command("train", *where, "--resume", *settings)
    if folder.name != TRUNK:
        command("test", *where, *settings)
