"""What pods_demo and pods_zoo share: mini experiments trained and tested one after another, as a user would."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import cvpods_ext
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError, TrainingError
from cvpods_ext.runtime.progress import track

logger = logging.getLogger(__name__)

Run = tuple[str, int]  # name of the experiment, seed

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


def run(
    folders: Sequence[Path], seeds: int, device: str = "cpu", overrides: Sequence[str] = (), jobs: int = 1
) -> list[Path]:
    """Train (or continue) and test the experiments for seeds 0 to `seeds` - 1; returns the folders of their results.

    `folders` come in an order in which a first stage precedes its second; the trunk is only trained. With several
    `jobs` so many experiments run side by side and share the processors; what they print goes to a console.txt each.
    """
    runs = [(folder, seed) for folder in folders for seed in range(seeds)]
    if jobs == 1:
        for folder, seed in runs:
            for name, *arguments in _steps(folder, seed, device, overrides):
                command(name, *arguments)
    else:
        _side_by_side(
            {(folder.name, seed): (folder, _steps(folder, seed, device, overrides)) for folder, seed in runs}, jobs
        )
    return [folder / "outputs" / f"seed{seed}" for folder, seed in runs if folder.name != TRUNK]


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
    """Whether the experiment is only tested: its net uses modeling.posthoc, and no statistics have to be collected."""
    collects = load_experiment(folder).config.schedule.optimizer == "none"
    return not collects and "cvpods_ext.modeling.posthoc" in (folder / "net.py").read_text(encoding="utf-8")


def command(name: str, *arguments: str) -> None:
    """Run one of our commands as a user would, showing it first."""
    print(f"\n$ pods_{name} {shlex.join(arguments)}", flush=True)
    finished = subprocess.run([sys.executable, "-c", _code(name), *arguments], check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def _code(name: str) -> str:
    return f"from cvpods_ext.cli.{name} import main; main()"


def _steps(folder: Path, seed: int, device: str, overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """The commands of one experiment: name and arguments."""
    settings = [f"seed={seed}", f"output=outputs/seed{seed}", *overrides]
    where = ["--dir", str(folder), "--device", device]
    first = first_stage(folder)
    weights = folder.parent / first / "outputs" / f"seed{seed}" / "model_final.pth"
    if is_calibration(folder):
        return [("test", *where, "--weights", str(weights), *settings)]
    if first:
        settings.append(f"model.init={os.path.relpath(weights, folder)}")
    train = ("train", *where, "--resume", *settings)
    return [train] if folder.name == TRUNK else [train, ("test", *where, *settings)]


def _side_by_side(runs: Mapping[Run, tuple[Path, list[tuple[str, ...]]]], jobs: int) -> None:
    """Work through the runs in their order, `jobs` at a time, each after its first stage; one line for each."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    pending: dict[Run, Future[None]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for (name, seed), (folder, steps) in runs.items():
            # A first stage was handed in before, so it runs or has run, and waiting for it always ends.
            before = pending.get((first_stage(folder), seed))
            pending[name, seed] = pool.submit(_quietly, folder / "outputs" / f"seed{seed}", steps, before)
        names = {future: run for run, future in pending.items()}
        for done in track(as_completed(names), "experiments", total=len(names)):
            if error := done.exception():
                pool.shutdown(cancel_futures=True)
                raise error
            logger.info("finished %s, seed %d", *names[done])


def _quietly(output: Path, steps: Sequence[tuple[str, ...]], before: Future[None] | None) -> None:
    """Run the commands of one experiment one after another, their output in a file. UserError if one fails."""
    if before is not None:
        before.result()
    output.mkdir(parents=True, exist_ok=True)
    console = output / "console.txt"
    with open(console, "a", encoding="utf-8") as file:
        for name, *arguments in steps:
            file.write(f"$ pods_{name} {shlex.join(arguments)}\n")
            file.flush()
            finished = subprocess.run(
                [sys.executable, "-c", _code(name), *arguments], check=False, stdout=file, stderr=subprocess.STDOUT
            )
            if finished.returncode:
                raise TrainingError(f"pods_{name} failed for {output.parent.parent.name}: its words are in {console}")
