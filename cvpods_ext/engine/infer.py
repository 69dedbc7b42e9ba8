"""Inference over the test set: every process streams its detections to disk, and an interrupted run goes on."""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data.annotations.annotations import load as load_annotations
from cvpods_ext.data.catalog import resolve
from cvpods_ext.data.loader import test_batches
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.errors import WeightsError
from cvpods_ext.evaluation.detection.background_eval import following
from cvpods_ext.evaluation.detection.detections import (
    SHARD_IMAGES,
    ShardWriter,
    completed_image_ids,
    read_shard_metadata,
    shard_files,
)
from cvpods_ext.modeling.detection.postprocess import RawDetections, finish
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.files import sha256_of
from cvpods_ext.runtime.progress import track
from cvpods_ext.structures import Batch, Detections, Targets

logger = logging.getLogger(__name__)

_FINISHING_THREADS = 4
_IMAGES_WAITING = 16  # bounds what is finished but not written, or computed but not finished


def weights_to_test(experiment: Experiment, given: str | None) -> Path:
    """The file that pods_test loads: the one given, else the experiment's own newest. WeightsError if there is none."""
    path = Path(given).expanduser().resolve() if given else CheckpointFolder(experiment.output).weights()
    if path is None:
        smoke = " --smoke" if experiment.smoke else ""
        raise WeightsError(
            f"nothing is trained yet in {experiment.output}: run `pods_train{smoke}` first, or test a file of yours "
            "with --weights FILE"
        )
    if not path.is_file():
        raise WeightsError(f"--weights {path}: there is no such file")
    return path


def detections_folder(experiment: Experiment) -> Path:
    """Where the shards of the experiment's test set are written."""
    dataset = resolve(experiment.config.data.test, experiment.folder).name
    return experiment.output / "inference" / dataset


def test_settings(experiment: Experiment, weights: Path) -> dict[str, Any]:
    """Everything that decides detections; shards made with other settings are not mixed with these."""
    config = experiment.config
    return {
        "weights_sha256": sha256_of(weights),
        "score_threshold": config.model.score_threshold,
        "nms_threshold": config.model.nms_threshold,
        "detections_per_image": config.model.detections_per_image,
        "suppression": config.model.suppression,
        "maskness_threshold": config.model.maskness_threshold,
        "ema": config.test.ema,
        "test_size": config.data.test_size,
        "test_max_size": config.data.test_max_size,
        "max_images": config.data.max_images,
    }


def infer(device: torch.device, experiment: Experiment, weights: Path, settings: dict[str, Any]) -> None:
    """Write this process's share of the detections; images that some shard completes already are skipped."""
    folder = detections_folder(experiment)
    if dist.is_main():
        _drop_other_settings(folder, settings)
    dist.barrier()
    model = experiment.build_model()
    _load_all(model, weights, experiment.config.test.ema)
    model.to(device).eval()

    config = experiment.config
    files = resolve(config.data.test, experiment.folder)
    category_ids = load_annotations(files).category_ids.tolist()
    batches = test_batches(
        config, experiment.folder, dist.rank(), dist.world_size(), skip_image_ids=completed_image_ids(folder)
    )
    watched = track(batches, "testing", disable=not dist.is_main())
    with (
        _evaluating_beside(experiment, files.annotations, folder, len(batches)),
        ShardWriter(folder, dist.rank(), settings) as writer,
    ):
        for detections in detections_of(model, watched, device):
            writer.add(detections, category_ids)
    # The evaluation follows in one process; the others end here instead of waiting for it.
    dist.barrier()


def detections_of(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[Detections]:
    """Detections of every image, in order; while the device computes a batch, threads finish the ones before it.

    A model without `detect` gives final detections itself. An error in a thread is raised here, at its image.
    """
    detect = getattr(model, "detect", model)
    pool = ThreadPoolExecutor(_finishing_threads())
    waiting: deque[Future[Detections]] = deque()
    try:
        for batch in batches:
            with torch.inference_mode():
                found = detect(batch.to(device))
            waiting.extend(pool.submit(_finish, *pair) for pair in zip(found, batch.targets, strict=True))
            while waiting and (waiting[0].done() or len(waiting) > _IMAGES_WAITING):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(raw: RawDetections | Detections, target: Targets) -> Detections:
    if isinstance(raw, Detections):
        return raw
    with torch.inference_mode():  # the mode belongs to a thread
        return finish(raw, target)


def _finishing_threads() -> int:
    share = len(os.sched_getaffinity(0)) // dist.processes_on_this_machine()
    return max(1, min(_FINISHING_THREADS, share))


def _evaluating_beside(
    experiment: Experiment, annotations: Path, folder: Path, num_batches: int
) -> AbstractContextManager[None]:
    """Evaluation of shards as they are completed, by rank 0 if there is more to infer than what fits in one shard."""
    test = experiment.config.test
    if not dist.is_main() or test.evaluator != "own" or num_batches <= SHARD_IMAGES:
        return nullcontext()
    return following(annotations, folder, test.metrics, test.max_detections)


def _load_all(model: nn.Module, weights: Path, ema: bool) -> None:
    """A model under test must get every one of its weights, or their averages; anything less is a WeightsError."""
    checkpoint = read(weights)
    if ema and not checkpoint.ema:
        raise WeightsError(
            f"{weights} holds no running average (ema_state): train with schedule.ema_decay, or set test.ema=False"
        )
    report = load_into(model, checkpoint.ema if ema else checkpoint, source=str(weights))
    logger.info("%s", report.summary())
    # The memory of a loss (class counts seen, gradients) belongs to training; a test does without.
    missing = [name for name in report.missing if "classification_loss" not in name]
    if missing or report.skipped:
        raise WeightsError(
            f"{weights} does not fit this experiment:\n{report.summary()}\n"
            "Test it in the folder that it was trained in; `pods_weights inspect FILE` shows what it holds"
        )


def _drop_other_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Remove shards of an earlier test with other weights or options."""
    if any(read_shard_metadata(path).settings != settings for path in shard_files(folder)):
        logger.warning("%s holds detections of other weights or settings; they are replaced", folder)
        shutil.rmtree(folder)
