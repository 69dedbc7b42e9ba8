"""Training in one process of a run. Everything that decides a step is a function of the config and the iteration.

    check(experiment)                                    # everything cheap that could fail later
    lock the output folder                               # until the end of the run
    checkpoint = newest sound one, if --resume           # else an earlier run makes way for the first checkpoint
    model, optimizer = build; load model.init or the checkpoint
    for iteration in range(start, iters):
        set the learning rate of this iteration
        for each micro-batch of this process:            # batch_size / (images_per_device * processes) of them
            images, targets = next(batches)              # decided by seed and iteration
            seed all generators by (seed, iteration, micro-batch)
            values = model(batch)                        # those called loss... are added up
            accumulate gradients
        exchange gradients, batch-norm statistics and loss memories
        move the weights unless the gradient is not finite, then their running average
        collect the losses that have arrived; stop and dump the step at the first that is not finite
        every log_every steps:        write a record
        every checkpoint_every steps: write a checkpoint in the background
        every picture_every steps:    draw targets and predictions of one image
        every test.every steps:       test the checkpoint as pods_test does
        on SIGTERM or Ctrl-C:         write a checkpoint, stop
    write model_final.pth

Randomness inside a step (which anchors and regions are sampled) is seeded by (seed, iteration, micro-batch), the
loader seeds augmentation by image. Hence a resumed run, or the same batch spread over other processes, repeats exactly.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.config.run_options import RunOptions
from cvpods_ext.data.resilient_loader import ResilientLoader
from cvpods_ext.engine.checkpoint import BackgroundSaver, CheckpointFolder
from cvpods_ext.engine.debug.profiler import Profile, debug_modes
from cvpods_ext.engine.debug.step_dump import dump_step
from cvpods_ext.engine.earlier_run import starting_over
from cvpods_ext.engine.evaluate import families_to_test
from cvpods_ext.engine.init_run import build, save_config, state_to_continue
from cvpods_ext.engine.logging.data_time import DataWait
from cvpods_ext.engine.logging.metrics import Monitor
from cvpods_ext.engine.logging.pictures import TrainingPictures
from cvpods_ext.engine.logging.writers import open_writers
from cvpods_ext.engine.optim import learning_rate
from cvpods_ext.engine.periodic_eval import PeriodicTest
from cvpods_ext.engine.resume_changes import warn_of_changes
from cvpods_ext.engine.signals import StopSignal
from cvpods_ext.engine.step import Step
from cvpods_ext.engine.step_values import NonFiniteError
from cvpods_ext.errors import TrainingError, UserError
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.hang import HangDetector
from cvpods_ext.runtime.run_lock import RunLock
from cvpods_ext.tasks.task import Task, find

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Run:
    """What is trained, where and how, and what tests it; complete before anything on disk is touched."""

    experiment: Experiment
    task: Task
    device: torch.device
    options: RunOptions
    checkpoints: CheckpointFolder
    tests: PeriodicTest


def check(experiment: Experiment) -> None:
    """Everything cheap that could fail later: ConfigError or DataError, a warning of what only a later test needs."""
    families_to_test(experiment)  # a name that no test knows is told now
    task = find(experiment.config.task)
    task.check(experiment)
    try:
        task.check_test(experiment)
    except UserError as error:
        if experiment.config.test.every:
            raise
        logger.warning("what is trained now cannot be tested: %s", error)


def train(experiment: Experiment, device: torch.device, options: RunOptions | None = None) -> None:
    """Train `experiment` to its end in this process, one of `dist.world_size()`.

    Raises ConfigError, DataError or WeightsError before the first step for what cannot work, TrainingError when a loss
    or gradient is not finite, KeyboardInterrupt after SIGTERM or Ctrl-C once a checkpoint is written.
    """
    config, task = experiment.config, find(experiment.config.task)
    check(experiment)
    checkpoints = CheckpointFolder(experiment.output, config.keep_checkpoints, config.keep_every)
    tests = PeriodicTest(experiment, device, checkpoints)
    run = _Run(experiment, task, device, options or RunOptions(), checkpoints, tests)
    with ExitStack() as owned:
        if dist.is_main():
            owned.enter_context(RunLock(experiment.output))
        saved = state_to_continue(checkpoints, run.options)
        model, state = build(experiment, task, device, fresh=saved is None)
        start = state.restore(saved) if saved is not None else 0
        if dist.is_main():
            checkpoints.require_space(state.checkpoint_bytes(), count=2 if saved is None else 1)
            if saved is None:
                owned.enter_context(starting_over(experiment.output))
        del saved  # a second copy of everything
        dist.barrier()
        with ExitStack() as stack:
            loop = _Loop(run, Step(model, state, config, device), start, stack)
            if tests.due(start):  # a run that was stopped in a test
                loop.test(start)
            for iteration in range(start, config.schedule.iters):
                loop.take_step(iteration)
        weights = state.weights(config.schedule.iters)
        if dist.is_main():
            logger.info("weights are in %s", checkpoints.save_final(weights))
        dist.barrier()


class _Loop:
    """What surrounds a step: records, checkpoints, tests, pictures, stop requests. `stack` closes it all."""

    def __init__(self, run: _Run, step: Step, start: int, stack: ExitStack) -> None:
        self.run, self.step = run, step
        experiment, output, rank = run.experiment, run.experiment.output, dist.rank()
        self.config = config = experiment.config
        self.iters = config.schedule.iters
        self.meters = run.task.meters(experiment, step.state.model, run.device)
        self.pictures = TrainingPictures(experiment, run.task)
        skipped = output / f"skipped.rank{rank}.txt"
        share = {"rank": rank, "world_size": dist.world_size(), "skipped_file": skipped}
        open_at = partial(run.task.training_batches, experiment, step.state.model, **share)
        self.batches = ResilientLoader(open_at, start, step.micro_batches)
        if dist.is_main():
            data_sha256 = run.task.training_set_sha256(experiment)
            if start:
                warn_of_changes(experiment, data_sha256)
            save_config(experiment, data_sha256)
        stack.enter_context(debug_modes(run.options))
        data_wait = DataWait(config.data.workers, dist.processes_on_this_machine())
        writers = open_writers(experiment, start, run.options.wandb)
        self.monitor = stack.enter_context(Monitor(output, start, self.iters, config.log_every, writers, data_wait))
        self.saver = stack.enter_context(BackgroundSaver(run.checkpoints))
        self.profile = stack.enter_context(Profile(output, run.options.profile))
        hang_seconds = 60 * run.options.hang_minutes
        self.hang = stack.enter_context(HangDetector(output / f"stacks.rank{rank}.txt", hang_seconds))
        self.stop = stack.enter_context(StopSignal())

    def take_step(self, iteration: int) -> None:
        """One optimizer step and what follows it; KeyboardInterrupt if the run is to stop here."""
        rate = learning_rate(self.config.schedule, iteration)
        self.monitor.add(**self.step.run(iteration, rate, self.batches, self.stop.requested))
        done, last = iteration + 1, iteration + 1 == self.iters
        self._collect()
        if done % self.config.log_every == 0 or last:
            for meter in self.meters:
                self.monitor.add(**meter.take())
        stopping = self.step.losses.stop_agreed
        if done % self.config.checkpoint_every == 0 or last or stopping or self.run.tests.due(done):
            self._save(done)
        self.monitor.step(done, rate)
        if self.pictures.due(done):
            self.pictures.show(self.step.state.model, self.step.recent[-1][1][0], self.monitor, done)
        self.profile.step()
        self.hang.beat()
        if stopping and not last:
            self.saver.wait()
            raise KeyboardInterrupt(f"stopped after iteration {done}; continue with --resume")
        if self.run.tests.due(done):
            self.test(done)

    def test(self, done: int) -> None:
        """Test the checkpoint of iteration `done`."""
        self.saver.wait()
        with self.hang.suspended(), self.stop.at_once():
            self.monitor.tested(done, self.run.tests.run(done), self.run.task.metrics)

    def _save(self, done: int) -> None:
        self._collect(wait=True)  # a checkpoint is never written after a loss that is not finite
        captured = self.step.state.capture(done)
        if dist.is_main():
            self.saver.save(captured)

    def _collect(self, wait: bool = False) -> None:
        """Hand the losses that have arrived to the monitor; a step that is not finite is dumped and ends the run."""
        try:
            for record in self.step.losses.collect(wait):
                self.monitor.add(**record)
        except NonFiniteError as error:
            batches = dict(self.step.recent)[error.iteration]
            experiment, state = self.run.experiment, self.step.state
            folder = dump_step(experiment, error.iteration, batches, state, may_hold_cause=error.is_ours)
            raise TrainingError(f"{error}. To find the first tensor that is not finite: pods_debug {folder}") from None
