"""What pods_debug needs to repeat a step that went wrong, on disk: the state before it, and the guilty batch.

`debug/iter_<n>/state.pth` is written by rank 0; `batch.rank<r>.pth` by every process that may hold the cause. Both
hold plain values only and load with `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import WeightsError
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.files import atomic_path
from cvpods_ext.structures import Batch, BitMasks, PolygonMasks, Targets

STATE = "state.pth"


@dataclass(frozen=True)
class BadStep:
    """A step as it was recorded: its experiment, where in the run it was, and what this process fed to the model."""

    experiment: Experiment
    iteration: int
    rank: int
    world_size: int
    batches: list[Batch]
    model: dict[str, Any]


def save_bad_step(
    experiment: Experiment, iteration: int, batches: Sequence[Batch], state: TrainingState, is_ours: bool
) -> Path:
    """Write the step; every process must call it. Returns the folder."""
    folder = experiment.output / "debug" / f"iter_{iteration:07d}"
    captured = state.capture(iteration)
    if dist.is_main():
        with atomic_path(folder / STATE) as temporary:
            torch.save(captured, temporary)
    if is_ours:
        content = {
            "folder": str(experiment.folder),
            "overrides": list(experiment.overrides),
            "smoke": experiment.smoke,
            "iteration": iteration,
            "rank": dist.rank(),
            "world_size": dist.world_size(),
            "batches": [_plain_batch(batch) for batch in batches],
        }
        with atomic_path(folder / f"batch.rank{dist.rank()}.pth") as temporary:
            torch.save(content, temporary)
    dist.barrier()
    return folder


def load_bad_step(path: Path, experiment_folder: Path | None = None) -> BadStep:
    """Read a batch file, or a folder with one; `experiment_folder` replaces the recorded one if that has moved."""
    if path.is_dir():
        found = sorted(path.glob("batch.rank*.pth"))
        if not found:
            raise WeightsError(f"{path} holds no batch.rank*.pth; give a folder debug/iter_<n> of a run's output")
        path = found[0]
    batch, state = _load(path), _load(path.parent / STATE)
    experiment = load_experiment(experiment_folder or batch["folder"], batch["overrides"], batch["smoke"])
    return BadStep(
        experiment=experiment,
        iteration=batch["iteration"],
        rank=batch["rank"],
        world_size=batch["world_size"],
        batches=[_batch(plain) for plain in batch["batches"]],
        model=state["model"],
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise WeightsError(f"{path} cannot be read as a recorded step: {str(error).splitlines()[0]}") from None


def _plain_batch(batch: Batch) -> list[dict[str, Any]]:
    return [
        {"image": image, **vars(target), "masks": _plain_masks(target.masks)}
        for image, target in zip(batch.images, batch.targets, strict=True)
    ]


def _plain_masks(masks: PolygonMasks | BitMasks | None) -> dict[str, Any] | None:
    if masks is None:
        return None
    return {name: torch.as_tensor(value) for name, value in vars(masks).items()}


def _batch(plain: list[dict[str, Any]]) -> Batch:
    targets = []
    for entry in plain:
        fields = {name: value for name, value in entry.items() if name != "image"}
        targets.append(Targets(**{**fields, "masks": _masks(entry["masks"])}))
    return Batch([entry["image"] for entry in plain], targets)


def _masks(plain: dict[str, Any] | None) -> PolygonMasks | BitMasks | None:
    if plain is None or "bitmaps" in plain:
        return None if plain is None else BitMasks(plain["bitmaps"])
    return PolygonMasks(**{name: np.asarray(value) for name, value in plain.items()})
