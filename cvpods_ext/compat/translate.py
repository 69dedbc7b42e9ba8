"""From an old config to ours: what is translated, what has no meaning here, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvpods_ext.compat import detector_settings, schedule
from cvpods_ext.compat.configs import AttributeDict, flat
from cvpods_ext.compat.stage_one import initial_weights
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.override import override
from cvpods_ext.errors import ConfigError

GROUPED, REPEATED = "DistributedGroupSampler", "RepeatFactorTrainingSampler"
_SAMPLERS = (GROUPED, "DistributedSampler", REPEATED)

# Settings of another program that change nothing here, with the reason.
NO_MEANING = {
    "OUTPUT_DIR": "output goes to outputs/ in the folder, or where output=... says",
    "MODEL.DEVICE": "--device and --num-gpus choose the device",
    "MODEL.DDP_BACKEND": "torch.distributed is used",
    "GLOBAL.DUMP_TRAIN": "README.md is never written",
    "GLOBAL.DUMP_TEST": "README.md is never written",
    "GLOBAL.HACK": "not read",
    "GLOBAL.LOG_INTERVAL": "log_every=... sets it",
    "GLOBAL.ANGULAR_UPDATE": "not measured",
    "GLOBAL.CLEARML": "TensorBoard is written; --wandb sends to Weights & Biases",
    "TRAINER.NAME": "one training loop runs all folders",
    "TRAINER.WINDOW_SIZE": "not read",
    "TRAINER.FP16.TYPE": "mixed precision is torch's own",
    "TRAINER.FP16.OPTS": "mixed precision is torch's own",
    "CUDNN_BENCHMARK": "not read",
    "VIS_PERIOD": "picture_every=... sets it",
    "DATALOADER.ASPECT_RATIO_GROUPING": "cvpods does not read it either; the sampler decides",
    "DATALOADER.ENABLE_INF_SAMPLER": "batches never end",
    "DATASETS.CUSTOM_TYPE": "not read",
    "TEST.EXPECTED_RESULTS": "not read",
    "TEST.ON_FILES": "not read",
    "INPUT.MASK_FORMAT": "polygons stay polygons, RLE stays RLE",
    "MODEL.ROI_BOX_CASCADE_HEAD": "read by cascades only",
    "TEST.KEYPOINT_OKS_SIGMAS": "key points are not built here",
}

# Where what is translated goes, in the order in which it is shown.
TRANSLATED = {
    "DATASETS.TRAIN": "data.train",
    "DATASETS.TEST": "data.test",
    "DATALOADER.SAMPLER_TRAIN": "data.sampler",
    "DATALOADER.REPEAT_THRESHOLD": "data.repeat_threshold",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "data.train_on_empty_images",
    "DATALOADER.NUM_WORKERS": "data.workers",
    "INPUT.FORMAT": "data.channels",
    "INPUT.AUG.TRAIN_PIPELINES": "data.train_sizes",
    "INPUT.AUG.TEST_PIPELINES": "data.test_size",
    "MODEL.WEIGHTS": "model.init",
    "MODEL.MASK_ON": "test.metrics",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "model.score_threshold",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "model.nms_threshold",
    "MODEL.NMS_TYPE": "model.suppression",
    "TEST.DETECTIONS_PER_IMAGE": "model.detections_per_image",
    "SOLVER.LR_SCHEDULER.MAX_ITER": "schedule.iters",
    "SOLVER.LR_SCHEDULER.MAX_EPOCH": "schedule.iters",
    "SOLVER.LR_SCHEDULER.STEPS": "schedule.decay",
    "SOLVER.LR_SCHEDULER.NAME": "schedule.decay",
    "SOLVER.LR_SCHEDULER.GAMMA": "schedule.decay",
    "SOLVER.LR_SCHEDULER.EPOCH_WISE": "schedule.decay",
    "SOLVER.LR_SCHEDULER.WARMUP_ITERS": "schedule.warmup_iters",
    "SOLVER.LR_SCHEDULER.WARMUP_FACTOR": "schedule.warmup_factor",
    "SOLVER.LR_SCHEDULER.WARMUP_METHOD": "schedule.warmup",
    "SOLVER.OPTIMIZER.NAME": "schedule.optimizer",
    "SOLVER.OPTIMIZER.BASE_LR": "schedule.lr",
    "SOLVER.OPTIMIZER.WEIGHT_DECAY": "schedule.weight_decay",
    "SOLVER.OPTIMIZER.WEIGHT_DECAY_NORM": "schedule.decay_norms",
    "SOLVER.OPTIMIZER.MOMENTUM": "schedule.momentum",
    "SOLVER.OPTIMIZER.BIAS_LR_FACTOR": "schedule.lr_multipliers",
    "SOLVER.IMS_PER_BATCH": "schedule.batch_size",
    "SOLVER.IMS_PER_DEVICE": "schedule.images_per_device",
    "SOLVER.BATCH_SUBDIVISIONS": "schedule.images_per_device",
    "SOLVER.CHECKPOINT_PERIOD": "checkpoint_every",
    "TRAINER.FP16.ENABLED": "schedule.precision",
    "TEST.EVAL_PERIOD": "test.every",
    "SEED": "seed",
}


@dataclass(frozen=True, kw_only=True)
class OldDetection(DetectionConfig):
    """An old config as ours; `cvpods` is what only the parts of the network and the folder's code read, by line."""

    cvpods: tuple[str, ...] = field(default=())


def detection(old: AttributeDict, folder: Path) -> OldDetection:
    """The config of a detector. ConfigError with one line for each setting that cannot be kept."""
    lines = [*schedule.refused(old.SOLVER), *detector_settings.refused(old), *_refused(old)]
    if lines:
        raise ConfigError("\n".join([f"{folder / 'config.py'}: these settings cannot be kept:", *lines]))
    translated = override(
        OldDetection(),
        data=_data(old),
        model={"init": initial_weights(old.MODEL.WEIGHTS, folder), **detector_settings.detector_settings(old)},
        schedule=schedule.schedule_settings(old),
        test=_test(old),
        seed=max(0, old.SEED),
        checkpoint_every=checkpoint_every(old),
    )
    return translated


def checkpoint_every(old: AttributeDict) -> int:
    """Iterations between checkpoints; a period of 0 or less asks for the last one only."""
    period = old.SOLVER.CHECKPOINT_PERIOD
    return period if period > 0 else 1_000_000_000


def untranslated(old: AttributeDict, base: Mapping[str, Any]) -> tuple[str, ...]:
    """`KEY = value` for every setting that differs from `base`, has a meaning, and no name among ours."""
    after = flat(old)
    rest = (key for key in _changed(old, base) if key not in TRANSLATED and not _no_meaning(key))
    return tuple(f"{key} = {after[key]!r}" for key in rest)


def _changed(old: AttributeDict, base: Mapping[str, Any]) -> list[str]:
    before = flat(base)
    return [key for key, value in flat(old).items() if key not in before or before[key] != value]


def _refused(old: AttributeDict) -> list[str]:
    lines = [*_refused_augmentation("TRAIN", old), *_refused_augmentation("TEST", old)]
    if old.DATALOADER.SAMPLER_TRAIN not in _SAMPLERS:
        lines.append(
            f"DATALOADER.SAMPLER_TRAIN is {old.DATALOADER.SAMPLER_TRAIN!r}: possible are {', '.join(_SAMPLERS)}"
        )
    for split in ("TRAIN", "TEST"):
        names = _names(old.DATASETS[split])
        if len(names) != 1:
            lines.append(
                f"DATASETS.{split} is {names!r}: one data set is possible; give it as DATASETS.{split} \"('NAME',)\""
            )
    if old.TEST.AUG.ENABLED:
        lines.append("TEST.AUG.ENABLED: images are tested at one size; set TEST.AUG.ENABLED False")
    if old.TEST.PRECISE_BN.ENABLED:
        lines.append("TEST.PRECISE_BN.ENABLED: statistics of norms are not measured again; set it to False")
    if old.MODEL.AS_PRETRAIN:
        lines.append("MODEL.AS_PRETRAIN: `pods_weights convert` writes weights to start from; set it to False")
    return lines


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _data(old: AttributeDict) -> dict[str, Any]:
    loader = old.DATALOADER
    resize = dict(old.INPUT.AUG.TRAIN_PIPELINES)["ResizeShortestEdge"]
    test = dict(old.INPUT.AUG.TEST_PIPELINES)["ResizeShortestEdge"]
    flip = dict(old.INPUT.AUG.TRAIN_PIPELINES).get("RandomFlip")
    repeats = loader.SAMPLER_TRAIN == REPEATED
    settings = dict(
        train=_names(old.DATASETS.TRAIN)[0],
        test=_names(old.DATASETS.TEST)[0],
        sampler="repeat_factor" if repeats else "uniform",
        channels=old.INPUT.FORMAT,
        workers=loader.NUM_WORKERS,
        train_on_empty_images=not loader.FILTER_EMPTY_ANNOTATIONS,
        group_by_aspect=loader.SAMPLER_TRAIN == GROUPED,
        train_sizes=_sides(resize["short_edge_length"]),
        train_max_size=resize["max_size"],
        test_size=_sides(test["short_edge_length"])[0],
        test_max_size=test["max_size"],
        flip_probability=0.0 if flip is None else float(flip.get("prob", 0.5)),
    )
    return {**settings, "repeat_threshold": float(loader.REPEAT_THRESHOLD)} if repeats else settings


def _test(old: AttributeDict) -> dict[str, Any]:
    period = old.TEST.EVAL_PERIOD
    return dict(
        metrics=("bbox", "segm") if old.MODEL.MASK_ON else ("bbox",),
        every=max(0, period),
        max_detections=100 if _names(old.DATASETS.TEST)[0].startswith("coco") else 300,
    )


def _sides(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _refused_augmentation(split: str, old: AttributeDict) -> list[str]:
    """One line for each step of a pipeline that is neither a resize by the short side nor a horizontal flip."""
    lines, names = [], []
    for name, arguments in old.INPUT.AUG[f"{split}_PIPELINES"]:
        names.append(name)
        known = ("ResizeShortestEdge", "RandomFlip") if split == "TRAIN" else ("ResizeShortestEdge",)
        if name not in known:
            lines.append(
                f"INPUT.AUG.{split}_PIPELINES has {name}: only {' and '.join(known)} are possible for an old folder; "
                "large-scale jitter is data.lsj_side of our folders"
            )
        elif name == "ResizeShortestEdge" and _several(arguments) and arguments.get("sample_style") != "choice":
            lines.append(
                f"INPUT.AUG.{split}_PIPELINES draws a size from a range: list the sizes and set sample_style='choice'"
            )
        elif name == "RandomFlip" and (arguments.get("vertical") or not arguments.get("horizontal", True)):
            lines.append(f"INPUT.AUG.{split}_PIPELINES flips vertically: only horizontal flips are possible")
    if "ResizeShortestEdge" not in names:
        lines.append(f"INPUT.AUG.{split}_PIPELINES has no ResizeShortestEdge, which every image goes through")
    return lines


def _several(arguments: Mapping[str, Any]) -> bool:
    return len(_sides(arguments["short_edge_length"])) > 1


def describe(old: AttributeDict, base: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What became of each setting that the folder changed, one line each: translated, without meaning, its own."""
    before, after = flat(base), flat(old)
    changed = _changed(old, base)
    lines = ["translated:"]
    for key in TRANSLATED:
        if key in changed:
            name = TRANSLATED[key]
            lines.append(f"  {key} = {after[key]!r:.60}  ->  {name} = {ours[name]!r}")
    rest = [key for key in changed if key not in TRANSLATED]
    without = {key: reason for key in rest if (reason := _no_meaning(key))}
    if without:
        lines += ["has no meaning here:", *(f"  {key}: {reason}" for key, reason in without.items())]
    for heading, keys in (
        ("read by the parts of the network", [key for key in rest if key in before and key not in without]),
        ("keys of the folder's own, left to its code", [key for key in rest if key not in before]),
    ):
        if keys:
            lines.append(f"{heading}: {', '.join(keys)}")
    return lines


def _no_meaning(key: str) -> str:
    """Why a setting has no meaning here, "" if it has one."""
    return next((why for name, why in NO_MEANING.items() if key == name or key.startswith(f"{name}.")), "")
