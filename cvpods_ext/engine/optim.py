"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from cvpods_ext.config import Schedule
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.layered import LayeredBackbone

logger = logging.getLogger(__name__)

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def select_trainable(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter whose full name matches none of the regular expressions; () changes nothing.

    Raises ConfigError for a pattern without a match, naming the nearest parameter.
    """
    if not patterns:
        return
    _check_patterns("model.train_only", patterns, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(re.fullmatch(pattern, name) for pattern in patterns))


def _check_patterns(setting: str, patterns: Sequence[str], model: nn.Module) -> None:
    """ConfigError for a regular expression that matches no parameter name in full, naming the nearest parameter."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        try:
            matches = any(re.fullmatch(pattern, name) for name in names)
        except re.error as error:
            raise ConfigError(f"{setting}: {pattern!r} is no regular expression: {error}") from None
        if not matches:
            close = difflib.get_close_matches(pattern.replace("\\", ""), names, n=1, cutoff=0.3)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{setting}: {pattern!r} matches no parameter of this model{hint}")


def build_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD or AdamW over what requires gradients, one group per learning rate and weight decay.

    Normalisation layers, position tables and class tokens are decayed only with `decay_norms`, parameters of one
    dimension only with `decay_vectors`. The rate of a group is its `lr_scale` times the rate of the step, see
    `set_learning_rate`; it is the product of `schedule.layer_decay` and
    `schedule.lr_multipliers`. ConfigError if nothing is left to train, or if a setting does not fit the model.
    """
    undecayed = set() if schedule.decay_norms else _norms_and_positions(model)
    scales = rate_factors(model, schedule)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = id(parameter) not in undecayed and (schedule.decay_vectors or parameter.ndim > 1)
            weight_decay = schedule.weight_decay if decays else 0.0
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
    """Identities of the weights and offsets of normalisation layers, of absolute position tables and class tokens."""
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, NORM_LAYERS)
        for parameter in module.parameters(recurse=False)
    }
    tables = ("pos_embed", "cls_token")
    return norms | {id(parameter) for name, parameter in model.named_parameters() if name.endswith(tables)}


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def learning_rate(schedule: Schedule, iteration: int) -> float:
    """Rate of the step taken at `iteration` (from 0): what the decay leaves, less during the warm-up."""
    rate = schedule.lr * schedule.decay.share(iteration, schedule.iters)
    if iteration < schedule.warmup_iters:
        progress = iteration / schedule.warmup_iters if schedule.warmup == "linear" else 0.0
        rate *= schedule.warmup_factor * (1 - progress) + progress
    return rate


def rate_factors(model: nn.Module, schedule: Schedule) -> dict[str, float]:
    """Parameter name -> its share of the learning rate, by layer decay and by `schedule.lr_multipliers`.

    Of several patterns that match a name the first one counts. ConfigError for a pattern that matches none.
    """
    _check_patterns("schedule.lr_multipliers", [pattern for pattern, _ in schedule.lr_multipliers], model)
    factors = layer_factors(model, schedule.layer_decay)
    for name in factors:
        matching = (factor for pattern, factor in schedule.lr_multipliers if re.fullmatch(pattern, name))
        factors[name] *= next(matching, 1.0)
    return factors


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Parameter name -> decay^k for the group k layers below the end of its backbone, 1 outside of a backbone.

    With n groups of `layer_groups()` the input's parameters have decay^n, those of the last block decay. ConfigError
    if no part of the model has layer groups, or several have.
    """
    if decay == 1:
        return dict.fromkeys((name for name, _ in model.named_parameters()), 1.0)
    backbones = [module for module in model.modules() if isinstance(module, LayeredBackbone)]
    if len(backbones) != 1:
        raise ConfigError(
            f"schedule.layer_decay={decay} needs one backbone that names its layers, as ViT and EVA-02 do by "
            f"layer_groups(), but this model has {len(backbones) or 'none'}: set schedule.layer_decay=1.0"
        )
    groups = backbones[0].layer_groups()
    factor_of = {id(p): decay ** (len(groups) - k) for k, group in enumerate(groups) for p in group}
    return {name: factor_of.get(id(parameter), 1.0) for name, parameter in model.named_parameters()}
