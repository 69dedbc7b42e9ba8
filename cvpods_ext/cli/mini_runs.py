"""What pods_demo and pods_zoo share: mini experiments trained and tested one after another, as a user would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cvpods_ext
from cvpods_ext.cli import jobs as job_list
from cvpods_ext.cli.jobs import command
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError

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
    made = {_job(one, device, overrides): one for one in runs}
    job_list.run(list(made), jobs, lambda job: _keep(made[job], kept))


def _job(one: Run, device: str, overrides: Sequence[str]) -> job_list.Job:
    folder, seed = one
    first = first_stage(folder)
    after = _name(folder.parent / first, seed) if first else ""
    return job_list.Job(_name(folder, seed), _output(one), tuple(_steps(*one, device, overrides)), after)


def _name(folder: Path, seed: int) -> str:
    return f"{folder.name}, seed {seed}"


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
