"""One pass over training images instead of training, for calibrations that are fitted by statistics."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.earlier_run import put_back, starting_over
from cvpods_ext.engine.init_run import initial_file, initial_weights, save_config
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.calibration import AccumulatesStatistics, FittedCalibration
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.progress import track
from cvpods_ext.runtime.run_lock import RunLock
from cvpods_ext.tasks.task import find

logger = logging.getLogger(__name__)


def fit_statistics(experiment: Experiment, device: torch.device, resume: bool = False) -> None:
    """Show `schedule.iters` batches to every `FittedCalibration` of the model, and save the weights.

    Nothing else changes. The sums are the same for any number of processes, but for their rounding. With `resume` a
    pass that is done is not repeated; one that was interrupted starts over. ConfigError if there is nothing to fit or
    no trained model to fit it to.
    """
    config, checkpoints = experiment.config, CheckpointFolder(experiment.output)
    if resume and checkpoints.weights() is not None:
        logger.info("%s is there already", checkpoints.weights())
        return
    model: nn.Module = experiment.build_model()
    parts = [module for module in model.modules() if isinstance(module, FittedCalibration)]
    if not parts:
        raise ConfigError(
            "schedule.fit='statistics' fits a calibration such as LogN, and net.py builds none: "
            "set schedule.fit='gradient'"
        )
    if not initial_weights(model, experiment, initial_file(experiment)):
        raise ConfigError("schedule.fit='statistics' needs the weights of a trained model: name it in model.init")
    with ExitStack() as owned:
        if dist.is_main():
            owned.enter_context(RunLock(experiment.output))
            put_back(experiment.output)
            owned.enter_context(starting_over(experiment.output))
            save_config(experiment, find(config.task).training_set_sha256(experiment))
        dist.barrier()
        model.to(device).eval()
        _accumulate(model, parts, experiment, device)
        for part in parts:
            part.synchronize()
        if dist.is_main():
            weights = {"model": _on_cpu(model), "iteration": config.schedule.iters}
            logger.info("weights are in %s", checkpoints.save_final(weights))
        dist.barrier()


@torch.inference_mode()
def _accumulate(
    model: nn.Module, parts: Sequence[FittedCalibration], experiment: Experiment, device: torch.device
) -> None:
    """Show this process's share of the batches to the model while `parts` accumulate."""
    schedule, rank, world_size = experiment.config.schedule, dist.rank(), dist.world_size()
    skipped = experiment.output / f"skipped.rank{rank}.txt"
    task = find(experiment.config.task)
    batches = task.training_batches(experiment, model, rank=rank, world_size=world_size, skipped_file=skipped)
    count = schedule.iters * schedule.accumulation(world_size)
    show = model.accumulate_statistics if isinstance(model, AccumulatesStatistics) else model
    for part in parts:
        part.accumulating = True
    for _ in track(range(count), "fitting statistics", disable=rank != 0):
        show(next(batches).to(device))
    for part in parts:
        part.accumulating = False


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}
