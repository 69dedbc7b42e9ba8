"""Inference over the test set: every process streams its predictions to disk, and an interrupted run goes on."""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvpods_ext.config import published_weights
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.identity import identity
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.weights.addresses import is_address
from cvpods_ext.modeling.weights.fetch import obtain
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.files import sha256_of, what_is_at
from cvpods_ext.runtime.progress import track
from cvpods_ext.structures import Batch, Target
from cvpods_ext.tasks.task import Predictions, Task, find

logger = logging.getLogger(__name__)

PUBLISHED = "published"  # in place of a file: the weights that others published for the experiment
_FINISHING_THREADS = 4
_IMAGES_WAITING = 16  # bounds what is finished but not written, or computed but not finished


def weights_to_test(experiment: Experiment, given: str | None) -> Path:
    """The file that pods_test loads: the one given, else the experiment's own newest. WeightsError if there is none.

    `given` is a path, an address such as hf://owner/repo/file, or "published"; what is not on this machine is fetched.
    """
    if given == PUBLISHED:
        given = published_weights.of(experiment.name).address
    if given and is_address(given):
        path = obtain(given, experiment.folder)
    elif given:
        path = Path(os.path.realpath(Path(given).expanduser()))
    else:
        path = experiment.weights_to_test(CheckpointFolder(experiment.output).weights())
    if path is None:
        smoke = " --smoke" if experiment.smoke else ""
        raise WeightsError(
            f"nothing is trained yet in {experiment.output}: run `pods_train{smoke}` first, or test a file of yours "
            "with --weights FILE"
            + (", or the published weights with --published" if experiment.name in published_weights.load() else "")
        )
    if not path.is_file():
        raise WeightsError(f"--weights {path} {what_is_at(path)}. Give the path of a .pth, .pkl or .safetensors file")
    return path


def predictions_of(experiment: Experiment, folder: Path | None = None) -> Predictions:
    """The predictions of the experiment's test set, below `folder` (default: its output folder)."""
    task = find(experiment.config.task)
    return task.predictions(experiment, (folder or experiment.output) / "inference" / task.test_set(experiment))


def test_settings(experiment: Experiment, weights: Path) -> dict[str, Any]:
    """What results.json says about a test, see `engine.identity` for all that decides predictions."""
    config = experiment.config
    return {
        "weights_sha256": sha256_of(weights),
        **find(config.task).prediction_settings(experiment),
        "ema": config.test.ema,
        "max_images": config.data.max_images,
    }


def infer(device: torch.device, experiment: Experiment, weights: Path, settings: dict[str, Any]) -> None:
    """Write this process's share of the predictions; images that are completed on disk are skipped.

    Predictions of another test in the same folder (see `engine.identity`) are removed when all new ones are written.
    """
    task, predictions = find(experiment.config.task), predictions_of(experiment)
    model = experiment.build_model()
    load_weights(model, weights, experiment.config.test.ema)
    made_with = identity(experiment, model, settings["weights_sha256"])
    earlier = predictions.folder.with_name(f"previous-{predictions.folder.name}")
    if dist.is_main():
        for damaged in predictions.set_damaged_aside():
            logger.warning("a file of predictions was cut short, its images are predicted again: %s", damaged)
        _set_others_aside(predictions, made_with, earlier)
    dist.barrier()
    model.to(device).eval()
    batches = task.test_batches(experiment, dist.rank(), dist.world_size(), done=predictions.completed())
    shown = track(batches, "testing", disable=not dist.is_main())
    with (
        predictions.evaluated_beside(len(batches)) if dist.is_main() else nullcontext(),
        predictions.writer(dist.rank(), made_with) as writer,
    ):
        for prediction in predict(task, model, shown, device):
            writer.add(prediction)
    # The evaluation follows in one process; the others end here instead of waiting for it.
    dist.barrier()
    if dist.is_main():
        shutil.rmtree(earlier, ignore_errors=True)


def predict(task: Task, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[Any]:
    """Predictions of every image, in order; while the device computes a batch, threads finish the ones before it.

    An error in a thread is raised here, at its image.
    """
    pool = ThreadPoolExecutor(_finishing_threads())
    waiting: deque[Future[Any]] = deque()
    try:
        for batch in batches:
            with torch.inference_mode():
                found = task.raw_predictions(model, batch.to(device))
            waiting.extend(pool.submit(_finish, task, *pair) for pair in zip(found, batch.targets, strict=True))
            while waiting and (waiting[0].done() or len(waiting) > _IMAGES_WAITING):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(task: Task, raw: Any, target: Target) -> Any:
    with torch.inference_mode():  # the mode belongs to a thread
        return task.finish(raw, target)


def _finishing_threads() -> int:
    share = len(os.sched_getaffinity(0)) // dist.processes_on_this_machine()
    return max(1, min(_FINISHING_THREADS, share))


def load_weights(model: nn.Module, weights: Path, ema: bool) -> None:
    """A model under test must get every one of its weights, or their averages; anything less is a WeightsError.

    With `ema`, a file of a run must hold an average; one that no run wrote, as released weights, is taken as it is.
    """
    checkpoint = read(weights)
    averaged = ema and bool(checkpoint.ema)
    if ema and not averaged:
        if "iteration" in checkpoint.metadata:  # a run wrote it; a released file says nothing of a run
            raise WeightsError(
                f"{weights} holds no running average (ema_state): train with schedule.ema_decay, or set test.ema=False"
            )
        logger.info("%s holds one set of weights and no run: tested as they are", weights)
    report = load_into(model, checkpoint.ema if averaged else checkpoint, source=str(weights))
    logger.info("%s", report.summary())
    # The memory of a loss (class counts seen, gradients) belongs to training; a test does without.
    losses = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, ClassificationLoss))
    missing = [name for name in report.missing if not name.startswith(losses)]
    if missing or report.skipped:
        raise WeightsError(
            f"{weights} does not fit this experiment:\n{report.summary()}\n"
            "Test it in the folder that it was trained in; `pods_weights inspect FILE` shows what it holds"
        )
    _require_finite(model, weights)


def _require_finite(model: nn.Module, weights: Path) -> None:
    """WeightsError if a parameter holds NaN or infinity, whose scores would be evaluated without a word."""
    broken = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{weights}: {len(broken)} tensors hold values that are not finite, such as {broken[0]}. The run "
            "that wrote them diverged, or the file is damaged: test an earlier checkpoint"
        )


def _set_others_aside(predictions: Predictions, made_with: Mapping[str, Any], earlier: Path) -> None:
    """Move what a test with other weights, settings, data or code wrote to `earlier`."""
    if any(found != made_with for found in predictions.settings()):
        logger.warning("%s holds predictions of another test; they are replaced", predictions.folder)
        shutil.rmtree(earlier, ignore_errors=True)
        predictions.folder.rename(earlier)
