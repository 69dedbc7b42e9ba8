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
from cvpods_ext.config.run_options import RunOptions
from cvpods_ext.data.loader import training_batches
from cvpods_ext.data.num_shots import frequency_groups
from cvpods_ext.data.resilient_loader import Reading
from cvpods_ext.engine.checkpoint import BackgroundSaver, CheckpointFolder
from cvpods_ext.engine.debug.profiler import Profile, instruments
from cvpods_ext.engine.debug.step_dump import save_bad_step
from cvpods_ext.engine.distributed.parallel import Replica, compile_backbone
from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.engine.init_run import initial_weights, save_config
from cvpods_ext.engine.logging.data_time import DataWait
from cvpods_ext.engine.logging.frequency_groups import GroupMeter
from cvpods_ext.engine.logging.metrics import Monitor
from cvpods_ext.engine.logging.writers import boards_of
from cvpods_ext.engine.optim import build_optimizer, learning_rate, select_trainable
from cvpods_ext.engine.periodic_eval import PeriodicTest
from cvpods_ext.engine.signals import StopSignal
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.engine.step import NotFinite, Step
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
    config, iters = experiment.config, experiment.config.schedule.iters
    checkpoints = CheckpointFolder(experiment.output, config.keep_checkpoints, config.keep_every)
    saved = _state_to_continue(checkpoints, options.resume)
    replica, state = _build(experiment, device, fresh=saved is None)
    start = state.restore(saved) if saved is not None else 0
    del saved  # a second copy of everything
    with ExitStack() as stack:
        loop = _Loop(experiment, device, options, draw, replica, state, checkpoints, start, stack)
        if loop.tests.due(start):  # a run that was stopped in a test
            loop.test(start)
        for iteration in range(start, iters):
            loop.take_step(iteration)
    weights = state.weights(iters)
    if dist.is_main():
        logger.info("weights are in %s", checkpoints.save_final(weights))
    dist.barrier()


class _Loop:
    """Everything around a step: records, checkpoints, tests, pictures, and the wish to stop."""

    def __init__(
        self,
        experiment: Experiment,
        device: torch.device,
        options: RunOptions,
        draw: Draw | None,
        replica: Replica,
        state: TrainingState,
        checkpoints: CheckpointFolder,
        start: int,
        stack: ExitStack,
    ) -> None:
        self.experiment, self.config, self.draw = experiment, experiment.config, draw
        self.replica, self.state = replica, state
        config, folder, output, rank = experiment.config, experiment.folder, experiment.output, dist.rank()
        self.iters = config.schedule.iters
        self.step = Step(replica, state, config, device)
        self.groups = GroupMeter(replica.model, frequency_groups(config.data, folder), device)
        self.tests = PeriodicTest(experiment, device, checkpoints)
        readers_of = partial(training_batches, config, folder, rank=rank, world_size=dist.world_size())
        skipped = output / f"skipped.rank{rank}.txt"
        self.batches = Reading(partial(readers_of, skipped_file=skipped), start, self.step.parts)
        if dist.is_main():
            save_config(experiment)
        stack.enter_context(instruments(options))
        data_wait = DataWait(config.data.workers, dist.processes_on_this_machine())
        boards = boards_of(experiment, start, options.wandb)
        self.monitor = stack.enter_context(Monitor(output, start, self.iters, config.log_every, boards, data_wait))
        self.saver = stack.enter_context(BackgroundSaver(checkpoints))
        self.profile = stack.enter_context(Profile(output, options.profile))
        self.alive = stack.enter_context(HangDetector(output / f"stacks.rank{rank}.txt", 60 * options.hang_minutes))
        self.stop = stack.enter_context(StopSignal())

    def take_step(self, iteration: int) -> None:
        """One optimizer step and what follows it; KeyboardInterrupt if the run is to stop here."""
        rate = learning_rate(self.config.schedule, iteration)
        self.monitor.add(**self.step.run(iteration, rate, self.batches, self.stop.requested))
        done, last = iteration + 1, iteration + 1 == self.iters
        self._collect()
        if done % self.config.log_every == 0 or last:
            self.monitor.add(**self.groups.take())
        stopping = self.step.watch.stop_agreed
        if done % self.config.checkpoint_every == 0 or last or stopping or self.tests.due(done):
            self._save(done)
        self.monitor.step(done, rate)
        if self.draw is not None and self.config.picture_every and done % self.config.picture_every == 0:
            _show(self.replica.model, self.step.recent[-1][1][0], self.draw, self.monitor, done)
        self.profile.step()
        self.alive.beat()
        if stopping and not last:
            self.saver.wait()
            raise KeyboardInterrupt(f"stopped after iteration {done}; continue with --resume")
        if self.tests.due(done):
            self.test(done)

    def test(self, done: int) -> None:
        """Test the checkpoint of iteration `done`."""
        self.saver.wait()
        with self.alive.suspended(), self.stop.at_once():
            self.monitor.tested(done, self.tests.run(done))

    def _save(self, done: int) -> None:
        self._collect(wait=True)  # a checkpoint never follows a bad loss
        captured = self.state.capture(done)
        if dist.is_main():
            self.saver.save(captured)

    def _collect(self, wait: bool = False) -> None:
        """Hand losses that are known by now to the monitor; a step gone bad is written down and ends the run."""
        try:
            for record in self.step.watch.collect(wait):
                self.monitor.add(**record)
        except NotFinite as bad:
            batches = dict(self.step.recent)[bad.iteration]
            folder = save_bad_step(self.experiment, bad.iteration, batches, self.state, bad.is_ours)
            raise TrainingError(f"{bad}. To find the first bad tensor: pods_debug {folder}") from None


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
