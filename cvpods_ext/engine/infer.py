"""Inference over the test set: every process streams its detections to disk, and an interrupted run goes on."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data.annotations import load as load_annotations
from cvpods_ext.data.catalog import resolve
from cvpods_ext.data.loader import test_batches
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.errors import WeightsError
from cvpods_ext.evaluation.detections import ShardWriter, completed_image_ids, read_shard_metadata, shard_files
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.files import sha256_of
from cvpods_ext.runtime.progress import track

logger = logging.getLogger(__name__)


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
    category_ids = load_annotations(resolve(config.data.test, experiment.folder)).category_ids.tolist()
    batches = test_batches(
        config, experiment.folder, dist.rank(), dist.world_size(), skip_image_ids=completed_image_ids(folder)
    )
    with ShardWriter(folder, dist.rank(), settings) as writer, torch.inference_mode():
        for batch in track(batches, "testing", disable=not dist.is_main()):
            for detections in model(batch.to(device)):
                writer.add(detections, category_ids)
    dist.barrier()


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
