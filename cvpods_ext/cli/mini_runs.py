"""What pods_demo and pods_zoo share: mini experiments trained and tested one after another, as a user would."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import cvpods_ext
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError, TrainingError
from cvpods_ext.runtime.progress import track

logger = logging.getLogger(__name__)

Run = tuple[Path, int]  # folder of the experiment, seed
Kept = Callable[[Run], Path]  # the folder in which the results of a run are kept

PREFIX = "mask_rcnn.narrow.fpn64.box.96."
TRUNK = PREFIX + "trunk"
RESULTS = "results.json"


def mini_folder() -> Path:
    """The folder of the mini experiments, with LVIS in a box beside them, drawn if it is not there yet."""
    mini = Path(cvpods_ext.__file__).resolve().parents[1] / "playground" / "mini"
    if not mini.is_dir():
        raise ConfigError(f"{mini} is absent: this needs a checkout of the project, installed with pip install -e .")
    os.environ["PODS_DATASETS"] = str(mini / "datasets")
    if not (mini / "datasets" / "lvis" / "lvis_box_val.json").is_file():
        command("data", "synth", str(mini / "datasets"))
    return mini


def every(folders: Sequence[Path], seeds: int) -> list[Run]:
    """Each experiment with seeds 0 to `seeds` - 1, in the order of `folders`: a first stage precedes its second."""
    return [(folder, seed) for folder in folders for seed in range(seeds)]


def beside_config(run: Run) -> Path:
    """Where results belong that cards and the index of the playground show, see `report.runs.results_of`."""
    return run[0] / "results" / f"seed{run[1]}"


def below(folder: Path) -> Kept:
    """A folder of its own for every run below `folder`."""
    return lambda run: folder / run[0].name / f"seed{run[1]}"


def missing(runs: Sequence[Run], kept: Kept) -> list[Run]:
    """Those without results where they are `kept`, and what they start from."""
    wanted = {run for run in runs if run[0].name != TRUNK and not (kept(run) / RESULTS).is_file()}
    for folder, seed in reversed(runs):  # a second stage before its first
        first = first_stage(folder)
        if first and (folder, seed) in wanted:
            wanted.add((folder.parent / first, seed))
    return [run for run in runs if run in wanted]


def run(
    runs: Sequence[Run],
    device: str = "cpu",
    overrides: Sequence[str] = (),
    jobs: int = 1,
    kept: Kept | None = None,
) -> None:
    """Train (or continue) and test the experiments in their order; the trunk is only trained.

    Results are copied to where they are `kept` as they come. With several `jobs` so many experiments run side by side
    and share the processors; what they print goes to a console.txt each.
    """
    if jobs > 1:
        _side_by_side({one: _steps(*one, device, overrides) for one in runs}, jobs, kept)
        return
    for one in runs:
        for name, *arguments in _steps(*one, device, overrides):
            command(name, *arguments)
        _keep(one, kept)


def compare(folders: Sequence[Path], seeds: int, kept: Kept | None, table: Path | None) -> None:
    """Show the table of all results, as they are `kept`, else those in the output folders; write it to `table`."""
    runs = [one for one in every(folders, seeds) if one[0].name != TRUNK]
    show([(kept or _output)(one) for one in runs], table)


def show(results: Sequence[Path], table: Path | None) -> None:
    """Show the table of the results in these folders, and write it to `table` as Markdown."""
    folders = list(map(str, results))
    command("compare", *folders)
    if table:
        command("compare", "--out", str(table), "--format", "markdown", *folders)


def _output(run: Run) -> Path:
    return run[0] / "outputs" / f"seed{run[1]}"


def _keep(run: Run, kept: Kept | None) -> None:
    if kept is not None and run[0].name != TRUNK:
        kept(run).mkdir(parents=True, exist_ok=True)
        shutil.copy(_output(run) / RESULTS, kept(run) / RESULTS)


def first_stage(folder: Path) -> str:
    """The name of the experiment whose weights `folder` starts from, "" if there is none."""
    init = load_experiment(folder).config.model.init
    return init.removeprefix("experiment:") if init.startswith("experiment:") else ""


def is_calibration(folder: Path) -> bool:
    """Whether the experiment is only tested."""
    return load_experiment(folder).config.schedule.fit == "none"


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


def _side_by_side(steps: Mapping[Run, list[tuple[str, ...]]], jobs: int, kept: Kept | None) -> None:
    """Work through the runs in their order, `jobs` at a time, each after its first stage; one line for each."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    pending: dict[Run, Future[None]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for one in steps:
            # A first stage was handed in before, so it runs or has run, and waiting for it always ends.
            before = pending.get((one[0].parent / first_stage(one[0]), one[1]))
            pending[one] = pool.submit(_quietly, _output(one), steps[one], before)
        runs = {future: one for one, future in pending.items()}
        for done in track(as_completed(runs), "experiments", total=len(runs)):
            if error := done.exception():
                pool.shutdown(cancel_futures=True)
                raise error
            _keep(runs[done], kept)
            logger.info("finished %s, seed %d", runs[done][0].name, runs[done][1])


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
                raise TrainingError(f"pods_{name} failed for {output.parent.parent.name}: see {console}")
