"""Old configs of image classification as ours: what is translated, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvpods_ext.compat import photo_pipelines, schedule
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.resnet_settings import refused_resnet
from cvpods_ext.compat.stage_one import initial_weights
from cvpods_ext.compat.translation import COMMON, Translation, names, period, refused_everywhere, sampling
from cvpods_ext.config.classification import ClassificationConfig, ClassificationData, Classifier
from cvpods_ext.config.override import override
from cvpods_ext.data import classification
from cvpods_ext.errors import ConfigError

_NAMES = {
    **COMMON,
    "INPUT.AUG.TRAIN_PIPELINES": "data.crop_area",
    "INPUT.AUG.TEST_PIPELINES": "data.crop_ratio",
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
}


@dataclass(frozen=True, kw_only=True)
class OldClassifier(Classifier):
    """With what cvpods does to frozen batch norms: they go on using and averaging the statistics of batches."""

    frozen_statistics_move: bool = True


@dataclass(frozen=True, kw_only=True)
class OldClassification(ClassificationConfig):
    """An old config as ours; `cvpods` is what only the parts of the network and the folder's code read, by line."""

    model: OldClassifier = field(default_factory=OldClassifier)
    cvpods: tuple[str, ...] = field(default=())


def _convert(old: AttributeDict, folder: Path) -> OldClassification:
    lines = [*schedule.refused(old.SOLVER), *refused_resnet(old), *refused_everywhere(old)]
    try:
        pipelines = photo_pipelines.settings(old.INPUT.AUG)
    except ConfigError as error:
        lines += str(error).split("\n")
    if lines:
        raise ConfigError("\n".join([f"{folder / 'config.py'}: these settings cannot be kept:", *lines]))
    data = {**_data(old), **pipelines}
    loaded = ClassificationData(**data)
    counts_epochs = old.SOLVER.LR_SCHEDULER.MAX_EPOCH is not None
    images = len(classification.load(loaded, loaded.train, folder)) if counts_epochs else None
    epoch = schedule.epoch_iterations(old, images) if images is not None else 1
    return override(
        OldClassification(),
        data=data,
        model={
            "init": initial_weights(old.MODEL.WEIGHTS, folder),
            "pixel_mean": tuple(round(255 * float(value), 9) for value in old.MODEL.PIXEL_MEAN),
            "pixel_std": tuple(round(255 * float(value), 9) for value in old.MODEL.PIXEL_STD),
        },
        schedule=schedule.schedule_settings(old, images),
        test={"every": max(0, old.TEST.EVAL_PERIOD) * epoch},
        seed=max(0, old.SEED),
        checkpoint_every=period(old.SOLVER.CHECKPOINT_PERIOD, epoch),
    )


def _data(old: AttributeDict) -> dict[str, Any]:
    return dict(
        train=names(old.DATASETS.TRAIN)[0],
        test=names(old.DATASETS.TEST)[0],
        channels=old.INPUT.FORMAT,
        workers=old.DATALOADER.NUM_WORKERS,
        **sampling(old),
    )


def _write_back(config: AttributeDict, changed: Mapping[str, Any]) -> None:
    for name, value in changed.items():
        if name == "frozen_statistics_move":
            continue  # read where the network is built
        if name not in ("pixel_mean", "pixel_std"):
            raise ConfigError(f"model.{name} cannot be changed for an old folder; change the key of its config.py")
        config.MODEL[name.upper()] = [one / 255 for one in value]


CLASSIFICATION = Translation(_NAMES, _convert, _write_back)
