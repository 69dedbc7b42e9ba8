"""What pods_debug needs to repeat a step that was not finite, on disk: the state before it, and its batches.

`debug/iter_<n>/state.pth` is written by rank 0; `batch.rank<r>.pth` by every process that may hold the cause. Both
hold plain values only and load with `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import WeightsError
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.files import atomic_path
from cvpods_ext.structures import Batch
from cvpods_ext.tasks.task import Task, find

STATE = "state.pth"


@dataclass(frozen=True)
class DumpedStep:
    """A step as it was dumped: its experiment, where in the run it was, and what this process fed to the model."""

    experiment: Experiment
    iteration: int
    rank: int
    world_size: int
    batches: list[Batch]
    model: dict[str, Any]


def dump_step(
    experiment: Experiment, iteration: int, batches: Sequence[Batch], state: TrainingState, may_hold_cause: bool
) -> Path:
    """Write the step, and the batches of processes that `may_hold_cause`; all must call it. Returns the folder."""
    folder = experiment.output / "debug" / f"iter_{iteration:07d}"
    captured = state.capture(iteration)
    if dist.is_main():
        with atomic_path(folder / STATE) as temporary:
            torch.save(captured, temporary)
    if may_hold_cause:
        task = find(experiment.config.task)
        content = {
            "folder": str(experiment.folder),
            "overrides": list(experiment.overrides),
            "smoke": experiment.smoke,
            "iteration": iteration,
            "rank": dist.rank(),
            "world_size": dist.world_size(),
            "batches": [_pack(batch, task) for batch in batches],
        }
        with atomic_path(folder / f"batch.rank{dist.rank()}.pth") as temporary:
            torch.save(content, temporary)
    dist.barrier()
    return folder


def load_step(path: Path, experiment_folder: Path | None = None) -> DumpedStep:
    """Read a batch file, or a folder with one; `experiment_folder` replaces the recorded one if that has moved.

    Raises WeightsError for a folder or file that is no dumped step.
    """
    if path.is_dir():
        found = sorted(path.glob("batch.rank*.pth"))
        if not found:
            raise WeightsError(f"{path} holds no batch.rank*.pth; give a folder debug/iter_<n> of a run's output")
        path = found[0]
    batch, state = _load(path), _load(path.parent / STATE)
    experiment = load_experiment(experiment_folder or batch["folder"], batch["overrides"], batch["smoke"])
    task = find(experiment.config.task)
    return DumpedStep(
        experiment=experiment,
        iteration=batch["iteration"],
        rank=batch["rank"],
        world_size=batch["world_size"],
        batches=[_unpack(images, task) for images in batch["batches"]],
        model=state["model"],
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise WeightsError(f"{path} cannot be read as a dumped step: {str(error).splitlines()[0]}") from None


def _pack(batch: Batch, task: Task) -> list[dict[str, Any]]:
    pairs = zip(batch.images, batch.targets, strict=True)
    return [{"image": image, "target": task.pack_target(target)} for image, target in pairs]


def _unpack(images: list[dict[str, Any]], task: Task) -> Batch:
    return Batch([one["image"] for one in images], [task.unpack_target(one["target"]) for one in images])
