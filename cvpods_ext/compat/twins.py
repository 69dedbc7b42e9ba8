"""Whether an old network and ours are one in more than their losses: gradients, what they find, how they start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.structures import Batch

_FEW = 64  # values of a tensor, below which its spread says nothing

Rename = Callable[[str], str]  # from a parameter of the old network to ours


def require_alike(old: nn.Module, ours: nn.Module, batch: Batch, rename: Rename) -> None:
    """ConfigError unless both have the same gradients and find the same in `batch`; their weights are equal."""
    theirs = {rename(name): value for name, value in _gradients(old, batch).items()}
    mine = _gradients(ours, batch)
    for name in sorted(theirs.keys() | mine.keys()):
        a, b = theirs.get(name), mine.get(name)
        if a is None or b is None or not torch.allclose(a, b, rtol=1e-3, atol=1e-5 * float(a.abs().max() + 1e-12)):
            raise ConfigError(
                f"the losses are equal, but not the gradient of {name}: code of the folder's own stops or scales it. "
                "The folder trains as it is; to move it, change our class as in docs/add_a_method.md"
            )
    load_into(ours, old.state_dict(), source="the old folder's network")  # norms have seen batches since
    for a, b in zip(_found(old, batch), _found(ours, batch), strict=True):
        if a.shape != b.shape or not torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-4):
            raise ConfigError(
                "the losses are equal, but not what the networks find: code or settings of net.py change scores, boxes "
                f"or which are kept ({_of(a)} there, {_of(b)} in ours). Put settings of a test into config.py; code "
                "that changes scores has no place in our builders"
            )


def _of(found: Tensor) -> str:
    return f"{len(found)} values, at most {float(found.max()):.4g}" if found.numel() else "nothing"


def _gradients(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    model.train()
    torch.manual_seed(1)
    losses = [value for name, value in model(batch).items() if name.startswith("loss")]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(torch.stack(losses).sum(), list(trained.values()), allow_unused=True)
    return {name: torch.zeros_like(trained[name]) if g is None else g for name, g in zip(trained, found, strict=True)}


def _found(model: Any, batch: Batch) -> list[Tensor]:
    """Scores, labels and boxes of every image; scores alone of a classifier."""
    model.eval()
    with torch.no_grad():
        if not hasattr(model, "detect"):
            return [model.predict(batch)]
        found = model.detect(batch)
    model.train()
    return [value for one in found for value in (one.scores, one.labels, one.boxes)]


def differing_starts(old: nn.Module, ours: nn.Module, rename: Rename) -> list[str]:
    """A line for parameters that do not start alike, in freshly built networks: constants, or spreads."""
    mine, lines = dict(ours.named_parameters()), []
    for name, theirs in old.named_parameters():
        here = mine.get(rename(name))
        if here is None or here.shape != theirs.shape:
            continue
        a, b = theirs.detach(), here.detach()
        if _differ(a, b):
            lines.append(f"{name} {_start(a)} there, {_start(b)} here")
    if not lines:
        return []
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return [f"starts otherwise, where no weights are loaded: {'; '.join(lines[:3])}{more}"]


def _differ(a: Tensor, b: Tensor) -> bool:
    if a.min() == a.max() or b.min() == b.max():
        return not torch.equal(a, b)
    return a.numel() >= _FEW and not 0.7 < float(a.std() / b.std()) < 1.4


def _start(value: Tensor) -> str:
    low, high = float(value.min()), float(value.max())
    return f"is {low:.3g}" if low == high else f"has a deviation of {float(value.std()):.2g}"
