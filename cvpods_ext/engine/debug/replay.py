"""Repeat a dumped step on the CPU and name its first tensor that is not finite, be it a weight or a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.engine.debug.step_dump import DumpedStep
from cvpods_ext.engine.optim import select_trainable
from cvpods_ext.engine.step import autocast, micro_batch_seed, seed_all
from cvpods_ext.engine.step_values import is_loss, total_loss

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Finding:
    """The first tensor that is not finite; `where` is like "output of backbone.res2.0 (Conv2d)"."""

    where: str
    description: str

    def __str__(self) -> str:
        return f"first tensor that is not finite: {self.where}\n  {self.description}"


def replay(step: DumpedStep, full_precision: bool = False) -> Finding | None:
    """Repeat the step as it was trained, or in float32; None if everything is finite.

    Weights are checked first, then every module's output in the order of the forward pass, the losses, and the
    gradients in the order of the backward pass. Random choices inside the step repeat if it was trained on the CPU.
    """
    model = step.experiment.build_model()
    model.load_state_dict(step.model)
    select_trainable(model, step.experiment.config.model.train_only)
    model.train()
    for name, tensor in model.state_dict().items():
        if not _finite(tensor):
            return Finding(f"{name} of the model, before the step", _describe(tensor))
    config = step.experiment.config
    found: list[Finding] = []
    hooks = list(_hooks(model, found.append))
    try:
        for index, batch in enumerate(step.batches):
            number = index * step.world_size + step.rank
            seed_all(micro_batch_seed(config.seed, step.iteration, number), _CPU)
            with torch.autocast("cpu", enabled=False) if full_precision else autocast(_CPU, config.schedule):
                values: dict[str, Tensor] = model(batch)
            for name, value in values.items():
                if is_loss(name) and not _finite(value):
                    found.append(Finding(f"the loss {name}", _describe(value)))
            if not found:
                total_loss(values).backward()
            if found:
                return found[0]
    finally:
        for hook in hooks:
            hook.remove()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not _finite(parameter.grad):
            return Finding(f"gradient of {name}", _describe(parameter.grad))
    return None


def _hooks(model: nn.Module, report: Callable[[Finding], None]) -> Iterator[Any]:
    """Hooks that report outputs, and gradients of outputs, that are not finite; inner modules come first."""

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            label = f"{name or 'the model'} ({type(module).__name__})"
            for tensor in _tensors(output):
                if not _finite(tensor):
                    taken = "; ".join(_describe(t) for t in _tensors(inputs)) or "no tensor"
                    report(Finding(f"output of {label}", f"{_describe(tensor)}\n  its input: {taken}"))
                elif tensor.requires_grad:
                    tensor.register_hook(lambda gradient: check(gradient, label))

        return hook

    def check(gradient: Tensor, label: str) -> None:
        if not _finite(gradient):
            report(Finding(f"gradient of the output of {label}", _describe(gradient)))

    for name, module in model.named_modules():
        yield module.register_forward_hook(hook_of(name))


def _tensors(value: Any) -> Iterator[Tensor]:
    """Floating-point tensors within nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _describe(tensor: Tensor) -> str:
    """Shape, how many values are NaN or infinite, and the range of the others."""
    values = tensor.detach().float()
    good = values[torch.isfinite(values)]
    span = f"others in [{good.min():.4g}, {good.max():.4g}]" if len(good) else "no other value"
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{kind} {list(tensor.shape)}: {int(values.isnan().sum())} NaN, {int(values.isinf().sum())} infinite, {span}"
