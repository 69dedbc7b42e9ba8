"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from cvpods_ext.config import Schedule
from cvpods_ext.errors import ConfigError

logger = logging.getLogger(__name__)

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_BLOCK = re.compile(r"backbone\..*?\bblocks\.(\d+)\.")
_INPUT = re.compile(r"backbone\.(.*\.)?(pos_embed|patch_embed)\b")


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
    """SGD or AdamW over what requires gradients, one group per learning rate and weight decay.

    Normalisation layers and position tables are decayed only with `decay_norms`. The rate of a group is its
    `lr_scale` times the rate of the step, see `set_learning_rate`.
    """
    undecayed = set() if schedule.decay_norms else _norms_and_positions(model)
    scales = layer_factors(model, schedule.layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            weight_decay = 0.0 if id(parameter) in undecayed else schedule.weight_decay
            groups.setdefault((-scales[name], -weight_decay), []).append(parameter)
    if not groups:
        raise ConfigError("nothing to train: every parameter of this model is frozen (see net.py and model.train_only)")
    settings = [
        {"params": groups[scale, decay], "weight_decay": -decay, "lr_scale": -scale} for scale, decay in sorted(groups)
    ]
    trainable = [parameter for group in groups.values() for parameter in group]
    logger.info(
        "training %d tensors, %s values of %s",
        len(trainable),
        f"{sum(p.numel() for p in trainable):,}",
        f"{sum(p.numel() for p in model.parameters()):,}",
    )
    if schedule.optimizer == "adamw":
        fused = _can_be_fused(trainable)
        return torch.optim.AdamW(settings, lr=schedule.lr, betas=(0.9, 0.999), eps=1e-8, fused=fused)
    fused = _can_be_fused(trainable) and not any(isinstance(p, DTensor) for p in trainable)  # torch has none for shards
    return torch.optim.SGD(settings, lr=schedule.lr, momentum=schedule.momentum, fused=fused)


def _can_be_fused(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether torch has one kernel for the whole update; such a kernel can also skip it without asking the CPU."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


def _norms_and_positions(model: nn.Module) -> set[int]:
    """Identities of the weights and offsets of normalisation layers, and of absolute position tables."""
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, NORM_LAYERS)
        for parameter in module.parameters(recurse=False)
    }
    return norms | {id(parameter) for name, parameter in model.named_parameters() if name.endswith("pos_embed")}


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def learning_rate(schedule: Schedule, iteration: int) -> float:
    """Rate of the step taken at `iteration` (from 0): linear warm-up, then a tenth at each milestone."""
    rate = schedule.lr * 0.1 ** sum(iteration >= milestone for milestone in schedule.milestones)
    if iteration < schedule.warmup_iters:
        progress = iteration / schedule.warmup_iters
        rate *= schedule.warmup_factor * (1 - progress) + progress
    return rate


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Parameter name -> factor in (0, 1] of the learning rate; ConfigError if the backbone has no blocks."""
    names = [name for name, _ in model.named_parameters()]
    depth = _depth(names)
    if depth == 0 and decay < 1:
        raise ConfigError(
            f"schedule.layer_decay={decay} needs a transformer backbone (parameters backbone...blocks.0...), which "
            "this model has not; set schedule.layer_decay=1.0"
        )
    return {name: decay ** (depth + 1 - _layer(name, depth)) for name in names}


def _depth(names: Iterable[str]) -> int:
    """Number of transformer blocks."""
    found = (_BLOCK.match(name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _layer(name: str, depth: int) -> int:
    """0 for the input, i + 1 for block i, depth + 1 for what follows or is no backbone."""
    if _INPUT.match(name):
        return 0
    block = _BLOCK.match(name)
    return int(block[1]) + 1 if block else depth + 1
