"""Old configs of detection and instance segmentation as ours: what is translated, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvpods_ext.compat import detector_settings, schedule
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.stage_one import initial_weights
from cvpods_ext.compat.translation import (
    COMMON,
    GROUPED,
    Translation,
    names,
    period,
    refused_everywhere,
    sampling,
)
from cvpods_ext.config.detection import DetectionConfig, Detector
from cvpods_ext.config.override import override
from cvpods_ext.errors import ConfigError

_NO_LIMIT = 1 << 30  # pixels of a long side
_NAMES = {
    **COMMON,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "data.train_on_empty_images",
    "INPUT.AUG.TRAIN_PIPELINES": "data.train_sizes",
    "INPUT.AUG.TEST_PIPELINES": "data.test_size",
    "MODEL.MASK_ON": "test.metrics",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "model.score_threshold",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "model.nms_threshold",
    "MODEL.NMS_TYPE": "model.suppression",
    "TEST.DETECTIONS_PER_IMAGE": "model.detections_per_image",
}


@dataclass(frozen=True, kw_only=True)
class OldDetector(Detector):
    """With what cvpods does to frozen batch norms: they go on using and averaging the statistics of batches."""

    frozen_statistics_move: bool = True


@dataclass(frozen=True, kw_only=True)
class OldDetection(DetectionConfig):
    """An old config as ours; `cvpods` is what only the parts of the network and the folder's code read, by line."""

    model: OldDetector = field(default_factory=OldDetector)
    cvpods: tuple[str, ...] = field(default=())


def _convert(old: AttributeDict, folder: Path) -> OldDetection:
    lines = [*schedule.refused(old.SOLVER), *detector_settings.refused(old), *_refused(old)]
    if lines:
        raise ConfigError("\n".join([f"{folder / 'config.py'}: these settings cannot be kept:", *lines]))
    return override(
        OldDetection(),
        data=_data(old),
        model={"init": initial_weights(old.MODEL.WEIGHTS, folder), **detector_settings.detector_settings(old)},
        schedule=schedule.schedule_settings(old),
        test=_test(old),
        seed=max(0, old.SEED),
        checkpoint_every=period(old.SOLVER.CHECKPOINT_PERIOD),
    )


DETECTION = Translation(_NAMES, _convert, detector_settings.write_back)


def _refused(old: AttributeDict) -> list[str]:
    lines = [*_refused_augmentation("TRAIN", old), *_refused_augmentation("TEST", old), *refused_everywhere(old)]
    if old.TEST.AUG.ENABLED:
        lines.append("TEST.AUG.ENABLED: images are tested at one size; set TEST.AUG.ENABLED False")
    return lines


def _data(old: AttributeDict) -> dict[str, Any]:
    loader = old.DATALOADER
    train, tested = (_by_name(old.INPUT.AUG[f"{split}_PIPELINES"]) for split in ("TRAIN", "TEST"))
    resize, test, flip = train["ResizeShortestEdge"], tested["ResizeShortestEdge"], train.get("RandomFlip")
    return dict(
        train=names(old.DATASETS.TRAIN)[0],
        test=names(old.DATASETS.TEST)[0],
        channels=old.INPUT.FORMAT,
        workers=loader.NUM_WORKERS,
        train_on_empty_images=not loader.FILTER_EMPTY_ANNOTATIONS,
        group_by_aspect=loader.SAMPLER_TRAIN == GROUPED,
        train_sizes=_sides(resize["short_edge_length"]),
        train_max_size=resize.get("max_size", _NO_LIMIT),
        test_size=_sides(test["short_edge_length"])[0],
        test_max_size=test.get("max_size", _NO_LIMIT),
        flip_probability=0.0 if flip is None else float(flip.get("prob", 0.5)),
        **sampling(old),
    )


def _test(old: AttributeDict) -> dict[str, Any]:
    return dict(
        metrics=("bbox", "segm") if old.MODEL.MASK_ON else ("bbox",),
        every=max(0, old.TEST.EVAL_PERIOD),
        max_detections=100 if names(old.DATASETS.TEST)[0].startswith("coco") else 300,
    )


def _sides(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _refused_augmentation(split: str, old: AttributeDict) -> list[str]:
    """One line for each step of a pipeline that is neither a resize by the short side nor a horizontal flip."""
    lines, found = [], []
    for name, *rest in old.INPUT.AUG[f"{split}_PIPELINES"]:
        arguments = rest[0] if rest else {}
        found.append(name)
        known = ("ResizeShortestEdge", "RandomFlip") if split == "TRAIN" else ("ResizeShortestEdge",)
        if name not in known:
            lines.append(
                f"INPUT.AUG.{split}_PIPELINES has {name}: only {' and '.join(known)} are possible for an old folder; "
                "large-scale jitter is data.lsj_side of our folders"
            )
        elif name == "ResizeShortestEdge" and split == "TEST" and _several(arguments):
            lines.append(f"INPUT.AUG.TEST_PIPELINES draws from {arguments['short_edge_length']}: give one size")
        elif name == "ResizeShortestEdge" and _several(arguments) and arguments.get("sample_style") != "choice":
            lines.append(
                f"INPUT.AUG.{split}_PIPELINES draws a size from a range: list the sizes and set sample_style='choice'"
            )
        elif name == "RandomFlip" and (arguments.get("vertical") or not arguments.get("horizontal", True)):
            lines.append(f"INPUT.AUG.{split}_PIPELINES flips vertically: only horizontal flips are possible")
    if "ResizeShortestEdge" not in found:
        lines.append(f"INPUT.AUG.{split}_PIPELINES has no ResizeShortestEdge, which every image goes through")
    return lines


def _by_name(pipeline: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    return {name: rest[0] if rest else {} for name, *rest in pipeline}


def _several(arguments: Mapping[str, Any]) -> bool:
    return len(_sides(arguments["short_edge_length"])) > 1
