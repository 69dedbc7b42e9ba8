"""Steps per second of the training loop against a bare PyTorch loop around the same model and batches.

Both do forward, backward and an SGD step with momentum on one process; ours also schedules the rate, watches losses
and gradient norm, tells frequency groups apart, logs to TensorBoard, and may write checkpoints. Rounds alternate, so
that a busy machine disturbs both alike; the quickest round of each counts. Writes benchmarks/engine_overhead.json and
.md.

python benchmarks/engine_overhead.py [--steps 300] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.engine.checkpoint import BackgroundSaver, CheckpointFolder
from cvpods_ext.engine.distributed.parallel import ParallelModel
from cvpods_ext.engine.logging.metrics import Monitor
from cvpods_ext.engine.logging.writers import TensorBoard
from cvpods_ext.engine.optim import build_optimizer, learning_rate
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.engine.step import Step
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.runtime.environment import commit
from cvpods_ext.runtime.files import write_json, write_text
from cvpods_ext.structures import Batch, Targets
from cvpods_ext.tasks.frequency_groups import GroupMeter

CPU = torch.device("cpu")
CLASSES = 9
OUT = Path(__file__).with_suffix(".json")


class Tiny(nn.Module):
    """A few layers: `width` decides how long a step takes beside the loop."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.ReLU(), nn.Linear(width, CLASSES + 1))
        self.loss = SoftmaxCrossEntropy()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Two losses, as a detector has several."""
        logits = self.layers(torch.stack(batch.images).float() / 255)
        labels = torch.arange(len(logits)) % CLASSES
        return {"loss_cls": self.loss(logits, labels), "loss_norm": 1e-4 * logits.square().mean()}


def batch() -> Batch:
    """Two images of 8 x 8."""
    target = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 1, (8, 8), (8, 8))
    return Batch([torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8) for _ in range(2)], [target, target])


def bare(width: int, steps: int) -> float:
    """Seconds a step of the plain loop."""
    model = Tiny(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    batches = cycle([batch() for _ in range(8)])
    started = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model(next(batches)).values())).sum().backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps


def ours(width: int, steps: int, folder: Path, checkpoint_every: int) -> tuple[float, float]:
    """Seconds a step of our loop, and of the slowest step but the first."""
    schedule = dict(iters=steps, batch_size=2, images_per_device=2, warmup_iters=10, lr=0.01, weight_decay=0.0)
    config = override(DetectionConfig(), schedule=schedule)
    model = Tiny(width)
    state = TrainingState(model, build_optimizer(model, config.schedule), torch.amp.GradScaler("cpu", enabled=False))
    step = Step(ParallelModel(model), state, config, CPU)
    groups = GroupMeter(model, np.array(list("rcf") * (CLASSES // 3)), CPU)
    batches = cycle([batch() for _ in range(8)])
    slowest = 0.0
    started = time.perf_counter()
    writers = [TensorBoard(folder, 0)]
    with Monitor(folder, 0, steps, 20, writers) as monitor, BackgroundSaver(CheckpointFolder(folder)) as saver:
        for iteration in range(steps):
            began = time.perf_counter()
            rate = learning_rate(config.schedule, iteration)
            monitor.add(**step.run(iteration, rate, batches, stop=False))  # type: ignore[arg-type]
            for record in step.losses.collect():
                monitor.add(**record)
            if (iteration + 1) % 20 == 0:
                monitor.add(**groups.take())
            if checkpoint_every and (iteration + 1) % checkpoint_every == 0:
                saver.save(state.capture(iteration + 1))
            monitor.step(iteration + 1, rate)
            slowest = max(slowest, time.perf_counter() - began) if iteration else 0.0
        spent = (time.perf_counter() - started) / steps  # the last write goes on behind
    return spent, slowest


def main() -> None:
    """Print one JSON line for each width, and write all of them."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--steps", type=int, default=300)
    flags.add_argument("--rounds", type=int, default=5)
    arguments = flags.parse_args()
    torch.set_num_threads(1)
    bare(16, 5)  # what torch loads at its first step
    rows = []
    for width in (16, 4096):
        plain, loop, saving = [], [], []
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder:
                plain.append(bare(width, arguments.steps))
                loop.append(ours(width, arguments.steps, Path(folder) / "a", 0))
                saving.append(ours(width, arguments.steps, Path(folder) / "b", max(1, arguments.steps // 5)))
        one, two, three = min(plain), min(loop)[0], min(saving)
        row = {
            "parameters": sum(p.numel() for p in Tiny(width).parameters()),
            "bare_ms": round(1e3 * one, 3),
            "ours_ms": round(1e3 * two, 3),
            "overhead_ms": round(1e3 * (two - one), 3),
            "with_5_checkpoints_ms": round(1e3 * three[0], 3),
            "slowest_step_with_checkpoints_ms": round(1e3 * three[1], 1),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "torch": torch.__version__}
    write_json(OUT, {"commit": commit(), "machine": machine, "steps": arguments.steps, "rows": rows})
    heading = " | ".join(rows[0])
    table = [f"| {heading} |", "|" + "---:|" * len(rows[0])]
    table += ["| " + " | ".join(f"{value:,}" for value in row.values()) + " |" for row in rows]
    about = f"By `python benchmarks/engine_overhead.py`, one process and one thread; {machine['system']}."
    write_text(
        OUT.with_suffix(".md"), "\n".join(["# The training loop beside a bare one", "", about, "", *table]) + "\n"
    )


if __name__ == "__main__":
    main()
