"""The training loop of one process. Everything that decides a step is a function of the config and the iteration.

Randomness inside a step (which anchors and regions are sampled) is seeded by (seed, iteration, part of the batch), the
loader seeds augmentation by image. Hence a resumed run, or the same batch spread over other processes, repeats exactly.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.config import Config, Schedule
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data.loader import training_batches
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.engine.monitor import LossWatch, Monitor
from cvpods_ext.engine.optim import build_optimizer, learning_rate, select_trainable, set_learning_rate
from cvpods_ext.engine.setup import initial_weights, save_config
from cvpods_ext.modeling.frozen_norms import has_frozen_norms, measure_frozen_norms
from cvpods_ext.runtime import dist
from cvpods_ext.structures import Batch

logger = logging.getLogger(__name__)

Draw = Callable[[Any, Any], Any]


def train(experiment: Experiment, device: torch.device, resume: bool = False, draw: Draw | None = None) -> None:
    """Train `experiment` to its end in this process, one of `dist.world_size()`.

    `resume` continues from the newest sound checkpoint in the output folder. `draw(image, targets_or_detections)` makes
    the pictures for TensorBoard, an (H, W, 3) uint8 array. Raises TrainingError when the loss is not finite.
    """
    config, schedule = experiment.config, experiment.config.schedule
    checkpoints = CheckpointFolder(experiment.output, config.keep_checkpoints)
    state = _state_to_continue(checkpoints, resume)
    torch.manual_seed(config.seed)  # every process builds the same model
    model = experiment.build_model()
    select_trainable(model, config.model.train_only)
    loaded = state is not None or initial_weights(model, experiment)
    model.to(device).train()
    if not loaded and has_frozen_norms(model):
        # The same first batch in every process, hence the same statistics.
        measure_frozen_norms(model, next(training_batches(config, experiment.folder, 0, 0, 1)).to(device))
    optimizer = build_optimizer(model, schedule)
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16")
    average = WeightAverage(model, schedule.ema_decay) if schedule.ema_decay else None
    start = _restore(state, model, optimizer, scaler, average) if state is not None else 0
    if dist.is_main():
        save_config(experiment)

    replica = _replicate(model)
    step = Step(replica, optimizer, scaler, config, device)
    batches = training_batches(config, experiment.folder, start, dist.rank(), dist.world_size())
    with Monitor(experiment.output, start, schedule.iters, config.log_every) as monitor, _StopSignal() as stop:
        for iteration in range(start, schedule.iters):
            rate = learning_rate(schedule, iteration)
            first = step.run(iteration, rate, batches, monitor)
            if average is not None:
                average.update(model)
            done = iteration + 1
            monitor.step(done, rate)
            if draw is not None and config.picture_every and done % config.picture_every == 0 and dist.is_main():
                _show(model, first, draw, monitor, done)
            if done % config.checkpoint_every == 0 or done == schedule.iters or (stop.requested and dist.is_main()):
                step.settle(monitor)
                if dist.is_main():
                    checkpoints.save(model, optimizer, done, {"scaler": scaler.state_dict(), **_averaged(average)})
            if stop.requested and dist.is_main():
                raise KeyboardInterrupt(f"stopped after iteration {done}; continue with --resume")
    if dist.is_main():
        logger.info("weights are in %s", checkpoints.save_final(model, schedule.iters, _averaged(average)))
    dist.barrier()


class Step:
    """One optimizer step over the global batch: this process's share, accumulated where it does not fit at once."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        config: Config,
        device: torch.device,
    ) -> None:
        self.model, self.optimizer, self.scaler, self.device = model, optimizer, scaler, device
        self.seed, self.schedule = config.seed, config.schedule
        self.parts = config.schedule.accumulation(dist.world_size())
        self.trainable = [p for group in optimizer.param_groups for p in group["params"]]
        self.watch = LossWatch()

    def run(self, iteration: int, rate: float, batches: Iterator[Batch], monitor: Monitor) -> Batch:
        """Take the step; returns the first part of the batch, still on the CPU, for pictures."""
        started, data_time = time.perf_counter(), 0.0
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        names: tuple[str, ...] = ()
        image_ids: list[int] = []
        shown: Batch | None = None
        total: Tensor | float = 0.0
        for part in range(self.parts):
            waiting = time.perf_counter()
            batch = next(batches)
            data_time += time.perf_counter() - waiting
            shown = shown or batch
            image_ids += batch.image_ids
            torch.manual_seed(_seed(self.seed, iteration, part * dist.world_size() + dist.rank()))
            names, values = self._forward_backward(batch.to(self.device), last=part == self.parts - 1)
            total = total + values / self.parts
        self._update()
        assert isinstance(total, Tensor) and shown is not None
        self.watch.push(iteration, names, total, image_ids)
        self._report(self.watch.collect(), monitor)
        monitor.add(time=time.perf_counter() - started, data_time=data_time)
        return shown

    def settle(self, monitor: Monitor) -> None:
        """Wait for the losses of all steps taken, so that a checkpoint never follows a bad one."""
        self._report(self.watch.collect(wait=True), monitor)

    def _forward_backward(self, batch: Batch, last: bool) -> tuple[tuple[str, ...], Tensor]:
        """Loss names and a vector of their values; gradients are added up, and exchanged after the last part."""
        exchange = nullcontext() if last or not hasattr(self.model, "no_sync") else self.model.no_sync()
        with exchange:
            with autocast(self.device, self.schedule):
                losses = self.model(batch)
            values = torch.stack([value.float() for value in losses.values()])
            self.scaler.scale(values.sum() / self.parts).backward()
        return tuple(losses), values.detach()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer) if self.scaler.is_enabled() else None
        if self.schedule.clip_norm:
            nn.utils.clip_grad_norm_(self.trainable, self.schedule.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _report(self, steps: list[dict[str, float]], monitor: Monitor) -> None:
        for losses in steps:
            monitor.add(total_loss=sum(losses.values()), **losses)


def autocast(device: torch.device, schedule: Schedule) -> Any:
    """The precision that the schedule asks for; float32 stays as it is."""
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[schedule.precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _seed(seed: int, iteration: int, part: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{iteration}/{part}".encode(), digest_size=7).digest(), "big")


def _replicate(model: nn.Module) -> nn.Module:
    if dist.world_size() == 1:
        return model
    # Frozen statistics and anchors are equal everywhere and never change: no buffer needs to be broadcast.
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)


def _state_to_continue(checkpoints: CheckpointFolder, resume: bool) -> dict[str, Any] | None:
    if resume:
        state = checkpoints.latest()
        if state is None:
            logger.info("nothing to resume in %s: starting at iteration 0", checkpoints.folder)
        return state
    if dist.is_main() and (moved := checkpoints.set_aside()):
        logger.warning("an earlier run was moved to %s (use --resume to continue a run)", moved)
    dist.barrier()
    return None


def _averaged(average: WeightAverage | None) -> dict[str, Any]:
    """What a checkpoint holds of the running average, under the key of published EVA-02 files."""
    return {} if average is None else {"ema_state": average.tensors}


def _restore(
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None,
) -> int:
    """Put everything back as it was; returns the number of steps already taken."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    if average is not None:
        average.load(state.get("ema_state", {}))
    return state["iteration"]


@torch.no_grad()
def _show(model: nn.Module, batch: Batch, draw: Draw, monitor: Monitor, iteration: int) -> None:
    """Ground truth and current detections of one training image."""
    # The picture is drawn in the frame that the model saw, so detections are asked for in that frame.
    one = Batch(batch.images[:1], [replace(batch.targets[0], original_size=batch.targets[0].size)])
    monitor.picture("train/targets", draw(one.images[0], one.targets[0]), iteration)
    device = next(model.parameters()).device
    model.eval()
    try:
        detections = model(one.to(device))[0]
    finally:
        model.train()
    monitor.picture("train/detections", draw(one.images[0], detections), iteration)


class _StopSignal:
    """Turns SIGTERM and the first Ctrl-C into a request that the loop honours between two steps."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> _StopSignal:
        self._before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("stopping after this step; a checkpoint will be written")
