"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Sequence

import torch
from torch import nn

from cvpods_ext.config import Schedule
from cvpods_ext.errors import ConfigError

logger = logging.getLogger(__name__)

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def select_trainable(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter whose full name matches none of the regular expressions; () changes nothing.

    Raises ConfigError for a pattern without a match, naming the nearest parameter.
    """
    if not patterns:
        return
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            close = difflib.get_close_matches(pattern.replace("\\", ""), names, n=1, cutoff=0.3)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"model.train_only: {pattern!r} matches no parameter of this model{hint}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(re.fullmatch(pattern, name) for pattern in patterns))


def build_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD with momentum over what requires gradients; weights and offsets of normalisation layers are not decayed."""
    norm_parameters = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, NORM_LAYERS)
        for parameter in module.parameters(recurse=False)
    }
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ConfigError("nothing to train: every parameter of this model is frozen (see net.py and model.train_only)")
    groups = [
        {
            "params": [p for p in trainable if id(p) not in norm_parameters],
            "weight_decay": schedule.weight_decay,
        },
        {"params": [p for p in trainable if id(p) in norm_parameters], "weight_decay": 0.0},
    ]
    logger.info(
        "training %d tensors, %s values of %s",
        len(trainable),
        f"{sum(p.numel() for p in trainable):,}",
        f"{sum(p.numel() for p in model.parameters()):,}",
    )
    return torch.optim.SGD([g for g in groups if g["params"]], lr=schedule.lr, momentum=schedule.momentum)


def learning_rate(schedule: Schedule, iteration: int) -> float:
    """Rate of the step taken at `iteration` (from 0): linear warm-up, then a tenth at each milestone."""
    rate = schedule.lr * 0.1 ** sum(iteration >= milestone for milestone in schedule.milestones)
    if iteration < schedule.warmup_iters:
        progress = iteration / schedule.warmup_iters
        rate *= schedule.warmup_factor * (1 - progress) + progress
    return rate
