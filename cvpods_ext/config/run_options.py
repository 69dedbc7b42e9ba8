"""How one run of pods_train behaves, beside what the experiment says. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """`resume` continues from the newest sound checkpoint; `wandb` names a Weights & Biases project, "" is none.

    `restarted` says that the launcher started this again after a crash: what it wrote before is continued, but no
    earlier run.

    The others are aids for debugging: `anomaly` lets autograd name the operation behind a NaN; `profile` writes a
    Chrome trace of a few steps; `deterministic` asks torch for algorithms that repeat bit for bit; after `hang_minutes`
    without a finished step every process writes the stacks of its threads (0: never).
    """

    resume: bool = False
    restarted: bool = False
    anomaly: bool = False
    profile: bool = False
    deterministic: bool = False
    hang_minutes: float = 15.0
    wandb: str = ""
