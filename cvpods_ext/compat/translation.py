"""What became of each setting of an old config: the same report for every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvpods_ext.compat.configs import AttributeDict, flat

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

# Where the settings go that folders of every task have.
COMMON = {
    "DATASETS.TRAIN": "data.train",
    "DATASETS.TEST": "data.test",
    "DATALOADER.SAMPLER_TRAIN": "data.sampler",
    "DATALOADER.REPEAT_THRESHOLD": "data.repeat_threshold",
    "DATALOADER.NUM_WORKERS": "data.workers",
    "INPUT.FORMAT": "data.channels",
    "MODEL.WEIGHTS": "model.init",
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
GROUPED, REPEATED = "DistributedGroupSampler", "RepeatFactorTrainingSampler"
FixedValues = Mapping[str, tuple[tuple[Any, ...], str]]
"""A key that has only some values here -> these, and the reason."""

_SAMPLERS = (GROUPED, "DistributedSampler", REPEATED)


@dataclass(frozen=True)
class Translation:
    """Old configs of one task as ours.

    `names` says where each setting goes that is translated, in the order in which it is shown. `convert` gives our
    config of an old one in a folder, and raises ConfigError with one line for each setting that cannot be kept.
    `write_back` sets the old keys of what was overridden under our names, names without "model.".
    """

    names: Mapping[str, str]
    convert: Callable[[AttributeDict, Path], Any]
    write_back: Callable[[AttributeDict, Mapping[str, Any]], None]

    def untranslated(self, old: AttributeDict, base: Mapping[str, Any]) -> tuple[str, ...]:
        """`KEY = value` for every setting that differs from `base`, has a meaning, and no name among ours."""
        after = flat(old)
        rest = (key for key in _changed(old, base) if key not in self.names and not _no_meaning(key))
        return tuple(f"{key} = {after[key]!r}" for key in rest)

    def describe(self, old: AttributeDict, base: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
        """What became of each setting that the folder changed, one line each: translated, without meaning, its own."""
        before, after = flat(base), flat(old)
        changed = _changed(old, base)
        lines = ["translated:"]
        for key in self.names:
            if key in changed:
                name = self.names[key]
                lines.append(f"  {key} = {after[key]!r:.60}  ->  {name} = {ours[name]!r}")
        rest = [key for key in changed if key not in self.names]
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


def refused_everywhere(old: AttributeDict) -> list[str]:
    """One line for each setting that no task keeps."""
    lines = []
    if old.DATALOADER.SAMPLER_TRAIN not in _SAMPLERS:
        lines.append(
            f"DATALOADER.SAMPLER_TRAIN is {old.DATALOADER.SAMPLER_TRAIN!r}: possible are {', '.join(_SAMPLERS)}"
        )
    for split in ("TRAIN", "TEST"):
        found = names(old.DATASETS[split])
        if len(found) != 1:
            lines.append(
                f"DATASETS.{split} is {found!r}: one data set is possible; give it as DATASETS.{split} \"('NAME',)\""
            )
    if old.TEST.PRECISE_BN.ENABLED:
        lines.append("TEST.PRECISE_BN.ENABLED: statistics of norms are not measured again; set it to False")
    if old.MODEL.AS_PRETRAIN:
        lines.append("MODEL.AS_PRETRAIN: `pods_weights convert` writes weights to start from; set it to False")
    return lines


def refused_values(config: Mapping[str, Any], fixed: FixedValues) -> list[str]:
    """One line for each setting of `fixed` that has none of its values."""
    found, lines = flat(config), []
    for key, (allowed, why) in fixed.items():
        value = found.get(key, allowed[0])
        if not any(_plain(value) == _plain(one) for one in allowed):
            lines.append(f"{key} is {value!r}: {why}; only {' or '.join(map(repr, allowed))} is possible")
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def names(value: Any) -> list[str]:
    """The data sets that DATASETS.TRAIN or TEST names."""
    return [value] if isinstance(value, str) else list(value)


def sampling(old: AttributeDict) -> dict[str, Any]:
    """data.sampler, and its threshold where it repeats images."""
    if old.DATALOADER.SAMPLER_TRAIN != REPEATED:
        return {"sampler": "uniform"}
    return {"sampler": "repeat_factor", "repeat_threshold": float(old.DATALOADER.REPEAT_THRESHOLD)}


def period(value: int, unit: int = 1) -> int:
    """Iterations between checkpoints, `unit` to one of the config's; 0 or less asks for the last one only."""
    return value * unit if value > 0 else 1_000_000_000


def _changed(old: AttributeDict, base: Mapping[str, Any]) -> list[str]:
    before = flat(base)
    return [key for key, value in flat(old).items() if key not in before or before[key] != value]


def _no_meaning(key: str) -> str:
    """Why a setting has no meaning here, "" if it has one."""
    return next((why for name, why in NO_MEANING.items() if key == name or key.startswith(f"{name}.")), "")
