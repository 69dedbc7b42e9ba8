"""Eight optimizer steps of the recorded segmentor: groups of parameters, learning rates, losses, weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from parity import EQUAL, Row, compare, impossible

from cvpods_ext.config import Schedule
from cvpods_ext.config.decay import Polynomial
from cvpods_ext.engine.optim import build_optimizer, learning_rate, set_learning_rate

if TYPE_CHECKING:
    from upernet_parity import UperGolden

RATES = 1e-7  # relative
# Rounding grows from step to step, behind a batch norm over two values: ours on one and on two threads differ by 1e-6,
# 4e-5, 2e-4, 4e-4 and 2.5e-3 at the last five steps, the reference's by 6e-6, ., 1.7e-4, . and 5.4e-4.
STEPS = (1e-5, 1e-5, 1e-5, 2e-5, 2e-4, 5e-4, 1e-3, 8e-3)
WEIGHTS = 2e-3  # behind the last step


def optimizer_rows(golden: UperGolden) -> Iterator[Row]:
    """What was recorded of the steps, on the batch without random parts."""
    recorded = golden.meta["optim_trace"]
    model = golden.model().train()
    schedule = Schedule(
        iters=recorded["max_iters"],
        decay=Polynomial(power=recorded["power"]),
        warmup_iters=recorded["warmup_iters"],
        warmup_factor=recorded["warmup_ratio"],
        lr=recorded["base_lr"],
        batch_size=2,
        images_per_device=2,
        optimizer="adamw",
        weight_decay=recorded["weight_decay"],
        decay_norms=True,
        decay_vectors=False,
        layer_decay=recorded["layer_decay"],
    )
    optimizer = build_optimizer(model, schedule)
    yield from group_rows(model, optimizer, recorded["groups"])
    batch = golden.batch()
    for step, expected in enumerate(recorded["trace"]):
        rate = learning_rate(schedule, step)
        yield compare(f"step {step}: rate", torch.tensor(rate, dtype=torch.float64), expected["lr_head"], RATES)
        set_learning_rate(optimizer, rate)
        losses = model(batch)
        total = losses["loss_decode"] + losses["loss_aux"]
        yield compare(f"step {step}: loss", total, expected["loss"], STEPS[step])
        yield compare(f"step {step}: decode", losses["loss_decode"], expected["decode.loss_ce"], 2 * STEPS[step])
        yield compare(f"step {step}: aux", losses["loss_aux"], expected["aux.loss_ce"], STEPS[step])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    for key in golden.forward:
        kind, _, name = key.partition("/")
        if kind == "optim_trace_final":
            yield compare(f"weights after the steps: {name}", model.get_parameter(name), golden.forward[key], WEIGHTS)


def group_rows(model: torch.nn.Module, optimizer: torch.optim.Optimizer, recorded: list[dict]) -> Iterator[Row]:
    """Share of the rate and weight decay of every parameter; a parameter in no group, or in two, meets no tolerance."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ours = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    theirs = {name: (group["lr_scale"], group["weight_decay"]) for group in recorded for name in group["names"]}
    if ours.keys() != theirs.keys():
        yield impossible(f"groups: {sorted(ours.keys() ^ theirs.keys())[:3]}")
        return
    order = sorted(theirs)
    for i, (what, tolerance) in enumerate((("share of the rate", RATES), ("weight decay", EQUAL))):
        found, expected = (torch.tensor([table[name][i] for name in order]) for table in (ours, theirs))
        yield compare(f"{what} of {len(order)} parameters", found, expected.numpy(), tolerance)
