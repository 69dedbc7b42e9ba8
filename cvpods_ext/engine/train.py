"""Training in one process of a run. Everything that decides a step is a function of the config and the iteration.

Randomness inside a step (which anchors and regions are sampled) is seeded by (seed, iteration, part of the batch), the
loader seeds augmentation by image. Hence a resumed run, or the same batch spread over other processes, repeats exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data.loader import training_batches
from cvpods_ext.data.training_facts import frequency_groups
from cvpods_ext.engine.bad_step import save_bad_step
from cvpods_ext.engine.boards import boards_of
from cvpods_ext.engine.bottleneck import DataWait
from cvpods_ext.engine.checkpoint import BackgroundSaver, CheckpointFolder
from cvpods_ext.engine.compiled import compile_backbone
from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.engine.groups import GroupMeter
from cvpods_ext.engine.instruments import Profile, instruments
from cvpods_ext.engine.monitor import Monitor
from cvpods_ext.engine.optim import build_optimizer, learning_rate, select_trainable
from cvpods_ext.engine.options import RunOptions
from cvpods_ext.engine.periodic import PeriodicTest
from cvpods_ext.engine.reading import Reading
from cvpods_ext.engine.replicas import Replica
from cvpods_ext.engine.setup import initial_weights, save_config
from cvpods_ext.engine.signals import StopSignal
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.engine.step import Step
from cvpods_ext.engine.watch import NotFinite
from cvpods_ext.errors import TrainingError
from cvpods_ext.modeling.frozen_norms import has_frozen_norms, measure_frozen_norms
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.hang import HangDetector
from cvpods_ext.structures import Batch

logger = logging.getLogger(__name__)

Draw = Callable[[Any, Any], Any]


def train(
    experiment: Experiment, device: torch.device, options: RunOptions | None = None, draw: Draw | None = None
) -> None:
    """Train `experiment` to its end in this process, one of `dist.world_size()`.

    `draw(image, targets_or_detections)` makes the pictures for TensorBoard, an (H, W, 3) uint8 array. Raises
    TrainingError when a loss or gradient is not finite, KeyboardInterrupt after SIGTERM or Ctrl-C once a checkpoint is
    written.
    """
    options = options or RunOptions()
    config, schedule, folder = experiment.config, experiment.config.schedule, experiment.folder
    rank, world_size, output = dist.rank(), dist.world_size(), experiment.output
    checkpoints = CheckpointFolder(output, config.keep_checkpoints, config.keep_every)
    saved = _state_to_continue(checkpoints, options.resume)
    replica, state = _build(experiment, device, fresh=saved is None)
    start = state.restore(saved) if saved is not None else 0
    del saved  # a second copy of everything
    step = Step(replica, state, config, device)
    groups = GroupMeter(replica.model, frequency_groups(config.data, folder), device)
    tests = PeriodicTest(experiment, device, checkpoints)
    readers_of = partial(training_batches, config, folder, rank=rank, world_size=world_size)
    batches = Reading(partial(readers_of, skipped_file=output / f"skipped.rank{rank}.txt"), start, step.parts)
    if dist.is_main():
        save_config(experiment)

    with ExitStack() as stack:
        stack.enter_context(instruments(options))
        data_wait = DataWait(config.data.workers, dist.processes_on_this_machine())
        boards = boards_of(experiment, start, options.wandb)
        monitor = stack.enter_context(Monitor(output, start, schedule.iters, config.log_every, boards, data_wait))
        saver = stack.enter_context(BackgroundSaver(checkpoints))
        profile = stack.enter_context(Profile(output, options.profile))
        alive = stack.enter_context(HangDetector(output / f"stacks.rank{rank}.txt", 60 * options.hang_minutes))
        stop = stack.enter_context(StopSignal())

        def test(done: int) -> None:
            saver.wait()
            with alive.suspended(), stop.at_once():
                monitor.tested(done, tests.run(done))

        if tests.due(start):  # a run that was stopped in a test
            test(start)
        for iteration in range(start, schedule.iters):
            rate = learning_rate(schedule, iteration)
            monitor.add(**step.run(iteration, rate, batches, stop.requested))
            done = iteration + 1
            _collect(step, monitor, experiment)
            if done % config.log_every == 0 or done == schedule.iters:
                monitor.add(**groups.take())
            last = done == schedule.iters or step.watch.stop_agreed
            if done % config.checkpoint_every == 0 or last or tests.due(done):
                _collect(step, monitor, experiment, wait=True)  # a checkpoint never follows a bad loss
                captured = state.capture(done)
                if dist.is_main():
                    saver.save(captured)
            monitor.step(done, rate)
            if draw is not None and config.picture_every and done % config.picture_every == 0:
                _show(replica.model, step.recent[-1][1][0], draw, monitor, done)
            profile.step()
            alive.beat()
            if step.watch.stop_agreed and done < schedule.iters:
                saver.wait()
                raise KeyboardInterrupt(f"stopped after iteration {done}; continue with --resume")
            if tests.due(done):
                test(done)
    weights = state.weights(schedule.iters)
    if dist.is_main():
        logger.info("weights are in %s", checkpoints.save_final(weights))
    dist.barrier()


def _build(experiment: Experiment, device: torch.device, fresh: bool) -> tuple[Replica, TrainingState]:
    """The model on its device and what trains it; weights are looked for only if the run is `fresh`."""
    config, schedule = experiment.config, experiment.config.schedule
    torch.manual_seed(config.seed)  # every process builds the same model
    model = experiment.build_model()
    select_trainable(model, config.model.train_only)
    loaded = not fresh or initial_weights(model, experiment)
    model.to(device).train()
    if schedule.compile:
        compile_backbone(model)
    if not loaded and has_frozen_norms(model):
        # The same first batch in every process, hence the same statistics.
        measure_frozen_norms(model, next(training_batches(config, experiment.folder, 0, 0, 1)).to(device))
    replica = Replica(model, shard=schedule.sharding == "shard")
    optimizer = build_optimizer(model, schedule)
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16")
    average = WeightAverage(model, schedule.ema_decay) if schedule.ema_decay else None
    return replica, TrainingState(model, optimizer, scaler, average)


def _state_to_continue(checkpoints: CheckpointFolder, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, None for a fresh start; an earlier run is then moved out of the way."""
    if dist.is_main():
        checkpoints.sweep()
        if not resume and (moved := checkpoints.set_aside()):
            logger.warning("an earlier run was moved to %s (use --resume to continue a run)", moved)
    dist.barrier()
    state = checkpoints.latest() if resume else None
    iteration = state["iteration"] if state is not None else 0
    if not dist.agree(iteration):
        raise TrainingError(
            f"the processes of this run do not see the same checkpoints (here: iteration {iteration} in "
            f"{checkpoints.folder}). With several machines the output folder must be on a shared disk"
        )
    if resume and state is None:
        logger.info("nothing to resume in %s: starting at iteration 0", checkpoints.folder)
    return state


def _collect(step: Step, monitor: Monitor, experiment: Experiment, wait: bool = False) -> None:
    """Hand losses that are known by now to the monitor; a step gone bad is written down and ends the run."""
    try:
        for record in step.watch.collect(wait):
            monitor.add(**record)
    except NotFinite as bad:
        batches = dict(step.recent)[bad.iteration]
        folder = save_bad_step(experiment, bad.iteration, batches, step.state, bad.is_ours)
        raise TrainingError(f"{bad}. To find the first bad tensor: pods_debug {folder}") from None


@torch.no_grad()
def _show(model: nn.Module, batch: Batch, draw: Draw, monitor: Monitor, iteration: int) -> None:
    """Ground truth and current detections of one training image; every process takes part, since shards must meet."""
    # The picture is drawn in the frame that the model saw, so detections are asked for in that frame.
    one = Batch(batch.images[:1], [replace(batch.targets[0], original_size=batch.targets[0].size)])
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # a picture is not worth compiling the network for one image
            detections = model(one.to(device))[0]
    finally:
        model.train()
    if dist.is_main():
        monitor.picture("train/targets", draw(one.images[0], one.targets[0]), iteration)
        monitor.picture("train/detections", draw(one.images[0], detections), iteration)
