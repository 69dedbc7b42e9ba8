"""One pass over training images instead of training: a calibration reads the logits that it standardises by."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

import torch
import torch.distributed as torch_dist
from torch import nn

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.init_run import initial_weights, save_config
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.posthoc import LogN
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.progress import track
from cvpods_ext.tasks.task import find

logger = logging.getLogger(__name__)


def observe(experiment: Experiment, device: torch.device, resume: bool = False) -> None:
    """Let every `LogN` of the model see the logits of all proposals of `schedule.iters` batches, and save the weights.

    Nothing else changes. The sums are the same for any number of processes, but for their rounding. With `resume` a
    pass that is done is not repeated; one that was interrupted starts over. ConfigError if there is nothing to fit or
    no trained detector to fit it to.
    """
    config, checkpoints = experiment.config, CheckpointFolder(experiment.output)
    if resume and checkpoints.weights() is not None:
        logger.info("%s is there already", checkpoints.weights())
        return
    model = experiment.build_model()
    parts = [module for module in model.modules() if isinstance(module, LogN)]
    if not parts or not isinstance(model, RCNN):
        raise ConfigError("schedule.optimizer='none' fits the LogN of a detector, and net.py builds none: choose sgd")
    if not initial_weights(model, experiment):
        raise ConfigError("LogN standardises the logits of a trained detector: name it in model.init")
    if dist.is_main():
        checkpoints.set_aside()
        save_config(experiment)
    dist.barrier()
    model.to(device).eval()
    _pass_over(model, parts, experiment, device)
    for part in parts:
        for sums in (part.observed, part.total, part.squares):
            if dist.world_size() > 1:
                torch_dist.all_reduce(sums)
    if dist.is_main():
        logger.info("saw the logits of %d proposals", int(parts[0].observed))
        weights = {"model": _on_cpu(model), "iteration": config.schedule.iters}
        logger.info("weights are in %s", checkpoints.save_final(weights))
    dist.barrier()


@torch.inference_mode()
def _pass_over(model: RCNN, parts: list[LogN], experiment: Experiment, device: torch.device) -> None:
    """Show this process's share of the batches to the model; what its classifiers answer goes to `parts`."""
    schedule, rank, world_size = experiment.config.schedule, dist.rank(), dist.world_size()
    skipped = experiment.output / f"skipped.rank{rank}.txt"
    task = find(experiment.config.task)
    batches = task.training_batches(experiment, model, rank=rank, world_size=world_size, skipped_file=skipped)
    count = schedule.iters * schedule.accumulation(world_size)
    heads = model.roi_heads
    selection = heads.selection
    heads.selection = replace(selection, limit=0)  # nothing will be reported, so no mask is drawn either
    with ExitStack() as stack:
        stack.callback(setattr, heads, "selection", selection)
        for part in parts:
            hook = part.cls_score.register_forward_hook(lambda _, features, logits, part=part: part.observe(logits))
            stack.callback(hook.remove)
        for _ in track(range(count), "observing logits", disable=rank != 0):
            model.detect(next(batches).to(device))


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}
