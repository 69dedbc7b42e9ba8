"""Answers of the released code of Seesaw, GumbelCE and ECM to recorded inputs: `golden/methods` of the shared data."""

from functools import cache

import numpy as np
import torch
from shared import shared

from cvpods_ext.modeling.losses.base import ClassificationLoss


@cache
def _records() -> dict[str, np.ndarray]:
    with np.load(shared("golden/methods/methods.npz"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def recorded(name: str) -> torch.Tensor:
    """One array; the test is skipped where the shared data are absent."""
    return torch.from_numpy(_records()[name].copy())


def assert_equals_recorded(
    loss: ClassificationLoss, inputs: str, outputs: str, *, value: float, gradient: float
) -> None:
    """Value (relative) and gradient (in shares of the recorded gradient's largest entry) of one forward pass."""
    logits = recorded(f"{inputs}_logits").requires_grad_()
    found = loss(logits, recorded(f"{inputs}_labels"))
    found.backward()
    expected, largest = recorded(f"{outputs}_grad"), recorded(f"{outputs}_grad").abs().max().item()
    assert abs(found.item() - recorded(f"{outputs}_loss").item()) <= value * abs(found.item())
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=gradient * largest)
