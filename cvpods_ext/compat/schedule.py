"""The sections SOLVER and TRAINER of an old config as our schedule."""

from __future__ import annotations

import math
from typing import Any

from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.config.decay import Cosine, Decay, EpochCosine, MultiStep, Steps
from cvpods_ext.errors import ConfigError

_OPTIMIZERS = {"D2SGD": "sgd", "SGD": "sgd", "AdamW": "adamw"}


# Of an optimizer: what is read, and what has one value here.
_READ = ("NAME", "BASE_LR", "BIAS_LR_FACTOR", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "MOMENTUM")
_ONLY: dict[str, Any] = {
    "BETAS": (0.9, 0.999),
    "EPS": 1e-8,
    "AMSGRAD": False,
    "NESTEROV": False,
    "DAMPENING": 0,
}


def _instead(key: str) -> str:
    return f"only {_ONLY[key]!r} is possible" if key in _ONLY else "nothing here reads it; delete it"


def refused(solver: AttributeDict) -> list[str]:
    """One line for each setting of SOLVER that the engine does not have."""
    scheduler, optimizer, clip = solver.LR_SCHEDULER, solver.OPTIMIZER, solver.CLIP_GRADIENTS
    lines = []
    if scheduler.NAME not in ("WarmupMultiStepLR", "WarmupCosineLR"):
        lines.append(
            f"SOLVER.LR_SCHEDULER.NAME is {scheduler.NAME!r}: possible are WarmupMultiStepLR and WarmupCosineLR; "
            'schedule.decay="Polynomial(power=1.0)" sets another one for this run'
        )
    if scheduler.WARMUP_METHOD not in ("linear", "constant"):
        lines.append(f"SOLVER.LR_SCHEDULER.WARMUP_METHOD is {scheduler.WARMUP_METHOD!r}: possible are linear, constant")
    if optimizer.NAME not in _OPTIMIZERS:
        lines.append(
            f"SOLVER.OPTIMIZER.NAME is {optimizer.NAME!r}: possible are {', '.join(_OPTIMIZERS)}; "
            "for another optimizer the numbers would not be those of the folder"
        )
    for key, value in optimizer.items():
        if key not in _READ and value != _ONLY.get(key):
            lines.append(f"SOLVER.OPTIMIZER.{key} is {value!r}: {_instead(key)}")
    if clip.ENABLED:
        lines.append(
            f"SOLVER.CLIP_GRADIENTS.ENABLED clips each tensor by {clip.CLIP_TYPE}, which the engine does not: it clips "
            "the length of the whole gradient. Set SOLVER.CLIP_GRADIENTS.ENABLED False, and schedule.clip_norm=35"
        )
    if optimizer.WEIGHT_DECAY_NORM not in (0, optimizer.WEIGHT_DECAY):
        lines.append(
            f"SOLVER.OPTIMIZER.WEIGHT_DECAY_NORM is {optimizer.WEIGHT_DECAY_NORM}: norms have the weight decay of the "
            f"rest ({optimizer.WEIGHT_DECAY}) or none"
        )
    if solver.IMS_PER_DEVICE % solver.BATCH_SUBDIVISIONS:
        lines.append("SOLVER.IMS_PER_DEVICE is not a multiple of SOLVER.BATCH_SUBDIVISIONS")
    return lines


def schedule_settings(config: AttributeDict, epoch_images: int | None = None) -> dict[str, Any]:
    """Fields of `config.schema.Schedule`. `epoch_images` is the length of an epoch, for runs that count them."""
    solver = config.SOLVER
    scheduler, optimizer = solver.LR_SCHEDULER, solver.OPTIMIZER
    iters = _iterations(config, epoch_images)
    bias = float(optimizer.BIAS_LR_FACTOR)
    return dict(
        iters=iters,
        lr=float(optimizer.BASE_LR),
        decay=_decay(scheduler, iters, iters if scheduler.MAX_EPOCH is None else scheduler.MAX_EPOCH),
        warmup=scheduler.WARMUP_METHOD,
        # counted in epochs where the run is
        warmup_iters=scheduler.WARMUP_ITERS * (1 if scheduler.MAX_EPOCH is None else iters // scheduler.MAX_EPOCH),
        warmup_factor=float(scheduler.WARMUP_FACTOR),
        # of norms it is not, as in cvpods
        lr_multipliers=((r"(?!.*norm\.bias).*\.bias", bias),) if bias != 1 else (),
        batch_size=solver.IMS_PER_BATCH,
        images_per_device=solver.IMS_PER_DEVICE // solver.BATCH_SUBDIVISIONS,
        optimizer=_OPTIMIZERS[optimizer.NAME],
        momentum=float(optimizer.get("MOMENTUM", 0.9)),
        weight_decay=float(optimizer.WEIGHT_DECAY),
        # D2SGD treats norms apart, torch's SGD does not.
        decay_norms=optimizer.NAME != "D2SGD" or optimizer.WEIGHT_DECAY_NORM != 0,
        precision="fp16" if config.TRAINER.FP16.ENABLED else "fp32",
    )


def _iterations(config: AttributeDict, epoch_images: int | None) -> int:
    scheduler = config.SOLVER.LR_SCHEDULER
    if scheduler.MAX_EPOCH is None:
        return scheduler.MAX_ITER
    if epoch_images is None:
        raise ConfigError(
            f"SOLVER.LR_SCHEDULER.MAX_EPOCH is {scheduler.MAX_EPOCH}: detectors are trained for iterations here. Set "
            f"it to None and MAX_ITER to {scheduler.MAX_EPOCH} x images / {config.SOLVER.IMS_PER_BATCH}"
        )
    return scheduler.MAX_EPOCH * epoch_iterations(config, epoch_images)


def epoch_iterations(config: AttributeDict, images: int) -> int:
    """Steps of an epoch of so many images, with an incomplete last batch."""
    return max(1, math.ceil(images / config.SOLVER.IMS_PER_BATCH))


def _decay(scheduler: AttributeDict, iters: int, length: int) -> Decay:
    """The decay of a run of `length` steps of the scheduler, iterations or epochs."""
    if scheduler.NAME == "WarmupCosineLR":
        return EpochCosine(epochs=length) if scheduler.get("EPOCH_WISE", False) else Cosine()
    drops = tuple(step / length for step in scheduler.STEPS if 0 < step < length)
    return MultiStep(drops=drops) if scheduler.GAMMA == 0.1 else Steps(drops=drops, gamma=float(scheduler.GAMMA))
