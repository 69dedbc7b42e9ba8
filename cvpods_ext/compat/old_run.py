"""What a run of cvpods left in its folder: weights to test, and a checkpoint from which training goes on here."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.config.decay import MultiStep
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.config.schema import Schedule
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.earlier_run import INDEX
from cvpods_ext.engine.optim import build_optimizer, select_trainable
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.keys import strip_wrappers
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.reader import read_training_state
from cvpods_ext.runtime.run_lock import RunLock

logger = logging.getLogger(__name__)

FINAL, LAST = "model_final.pth", "last_checkpoint"
_NUMBERED = re.compile(r"model_(?:iter_|epoch_)?(\d+)\.pth")


def log_folders(folder: Path, output_dir: str) -> list[Path]:
    """Where cvpods wrote: the folder or link `log`, and OUTPUT_DIR if it is there."""
    candidates = [folder / "log", folder / output_dir]
    return [path for path in candidates if path.is_dir() and path.resolve() != folder]


def final_weights(folders: list[Path]) -> Path | None:
    """The final weights of the first folder that has any, else its checkpoint of the highest number."""
    for folder in folders:
        if (folder / FINAL).is_file():
            return folder / FINAL
        numbered = {int(found[1]): path for path in folder.iterdir() if (found := _NUMBERED.fullmatch(path.name))}
        if numbered:
            return numbered[max(numbered)]
    return None


def take_over(experiment: Experiment, folders: list[Path]) -> None:
    """Write the newest checkpoint of cvpods as one of ours, so that `--resume` goes on from it.

    Nothing is done where our own run has checkpoints or cvpods' `last_checkpoint` names none. The model must fit in
    every tensor; a state of the optimizer that does not fit is left out with a warning. Raises WeightsError.
    """
    if (experiment.output / INDEX).is_file():
        return
    source = next((path for path in map(_last_checkpoint, folders) if path is not None), None)
    if source is None:
        return
    saved, schedule = read_training_state(source), experiment.config.schedule
    model = experiment.build_model()
    select_trainable(model, experiment.config.model.train_only)
    report = load_into(model, strip_wrappers(saved["model"]), source=str(source))
    if report.missing or report.skipped:
        raise WeightsError(
            f"{source} does not fit this folder:\n{report.summary()}\nResume without it: remove {source}"
        )
    optimizer = build_optimizer(model, schedule)
    kept = _restore_momentum(optimizer, model, saved)
    scaler = torch.amp.GradScaler("cpu", enabled=schedule.precision == "fp16")
    done = _progress(saved, schedule, source)
    state = TrainingState(model, optimizer, scaler).capture(done)
    with RunLock(experiment.output):
        CheckpointFolder(experiment.output, experiment.config.keep_checkpoints).save(state)
    logger.info("taken over from cvpods: %s, %d iterations, %s", source, done, kept)


def _progress(saved: Mapping[str, Any], schedule: Schedule, source: Path) -> int:
    """Steps done as this config counts them: cvpods scales a run with its number of GPUs, and its schedule tells."""
    done = saved["iteration"] + 1  # cvpods notes the last step, we the number of steps
    state = saved.get("scheduler")
    state = state if isinstance(state, Mapping) else {}
    theirs, ours = sorted(state.get("milestones") or ()), ()
    if isinstance(schedule.decay, MultiStep):
        ours = schedule.decay.milestones(schedule.iters)
    if not theirs or not ours or len(theirs) != len(ours) or not all(isinstance(one, int) for one in theirs):
        return done
    ratio = theirs[-1] / ours[-1]
    if any(abs(a / b - ratio) > 0.01 * ratio for a, b in zip(theirs, ours, strict=True)):
        raise WeightsError(
            f"{source} is of a schedule with drops at {theirs}, and this folder has them at {list(ours)}: resuming "
            "would be a run of neither. Start from it by --weights, or give the folder that schedule"
        )
    if abs(ratio - 1) > 1e-6:
        logger.warning(
            "%s is of a run %.3g times as long, on another number of GPUs: its iteration %d is %d here",
            source, ratio, done, round(done / ratio),
        )  # fmt: skip
    return round(done / ratio)


def _last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that the file `last_checkpoint` names; it is beside it, wherever the name says."""
    try:
        name = (folder / LAST).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    path = folder / Path(name).name
    return path if name and path.is_file() else None


def _restore_momentum(optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Any]) -> str:
    """Give every parameter the momentum that cvpods saved for it; returns what was done, in words.

    There a parameter has a number in the order of the model, which is that of the saved tensors.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    names = [name for name in strip_wrappers(saved["model"]) if name in wanted]
    state, groups = saved.get("optimizer", {}).get("state", {}), saved.get("optimizer", {}).get("param_groups", [])
    numbers = [number for group in groups for number in group["params"]]
    if not isinstance(optimizer, torch.optim.SGD) or not state:
        return "without a state of the optimizer"
    buffers = {name: state.get(number, {}).get("momentum_buffer") for name, number in zip(names, numbers, strict=False)}
    fits = len(names) == len(numbers) == len(wanted) and all(
        isinstance(buffer, Tensor) and buffer.shape == wanted[name].shape for name, buffer in buffers.items()
    )
    if not fits:
        logger.warning(
            "the optimizer of the checkpoint has %d tensors that do not fit the %d that train here: its momentum is "
            "left out and builds up again within some hundred iterations",
            len(numbers),
            len(wanted),
        )
        return "without the state of the optimizer"
    for name, buffer in buffers.items():
        optimizer.state[wanted[name]]["momentum_buffer"] = buffer.clone()
    return f"with the momentum of {len(buffers)} tensors"
