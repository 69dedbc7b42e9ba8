"""Time and memory of an EVA-02 LVIS detector: inference or training steps, on a CPU or a GPU, with random weights.

    python benchmarks/eva02_speed.py --folder playground/lvis1.0/<name>             inference of one image
    python benchmarks/eva02_speed.py --folder ... --train --device cuda --recompute activation checkpointing
    python benchmarks/eva02_speed.py --folder ... --train --device cuda --compile   compiled transformer blocks

The image is as large as the experiment's test images may be. With --device cuda the attention kernels are listed.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.engine.step import autocast
from cvpods_ext.modeling.rcnn import RCNN
from cvpods_ext.structures import Batch, PolygonMasks, Targets

OBJECTS = 12  # per image, about LVIS's mean


def batch_of(images: int, side: int) -> Batch:
    """Noise in landscape format with a few square objects."""
    generator = torch.Generator().manual_seed(0)
    height = side * 2 // 3 // 32 * 32
    pixels = torch.randint(0, 256, (images, 3, height, side), generator=generator, dtype=torch.uint8)
    corners = torch.randint(0, height // 2, (OBJECTS, 2), generator=generator).float()
    boxes = torch.cat((corners, corners + side // 8), dim=1)
    squares = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
    target = Targets(
        boxes=boxes,
        labels=torch.arange(OBJECTS),
        image_id=0,
        size=(height, side),
        original_size=(height, side),
        masks=PolygonMasks.from_lists(squares),
    )
    return Batch(list(pixels), [target] * images)


def peak_gib(device: torch.device) -> float:
    """Allocated on the GPU, or resident in the process, at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step_of(
    model: RCNN, batch: Batch, precision: AbstractContextManager[object], optimizer: torch.optim.Optimizer | None
) -> Callable[[], None]:
    """One inference, or one training step where there is an optimizer."""

    def step() -> None:
        if optimizer is None:
            with torch.inference_mode(), precision:
                model(batch)
            return
        with precision:
            losses: dict[str, Tensor] = model(batch)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def attention_kernels(step: Callable[[], None]) -> list[str]:
    """Names of the device kernels that a step spends on attention."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
    words = ("flash", "fmha", "attention", "cudnn")
    return sorted({event.key for event in recorded.key_averages() if any(word in event.key.lower() for word in words)})


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    return parser.parse_args()


def main(report: Callable[[str], None] = print) -> None:
    """Print seconds per image and peak memory."""
    given = arguments()
    device = torch.device(given.device)
    config = load_experiment(given.folder, [f"schedule.precision={given.precision}"]).config
    torch.manual_seed(0)
    started = time.perf_counter()
    model: RCNN = load_experiment(given.folder).build_model().to(device).train(given.train)
    report(f"built in {time.perf_counter() - started:.1f} s, {peak_gib(device):.2f} GiB")
    model.backbone.net.recompute = given.recompute
    if given.compile:
        for block in model.backbone.net.blocks:
            block.compile()
    optimizer = build_optimizer(model, config.schedule) if given.train else None
    batch = batch_of(given.images, config.data.lsj_side).to(device)
    precision = autocast(device, config.schedule) if given.precision != "fp32" else nullcontext()
    step = step_of(model, batch, precision, optimizer)
    step()  # warms up, compiles, allocates
    times = []
    for _ in range(given.steps):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started) / given.images)
    what = "training step" if given.train else "inference"
    report(f"{what}: {min(times):.3f} s per image (best of {given.steps}), peak {peak_gib(device):.2f} GiB")
    if device.type == "cuda":
        report("attention kernels: " + "; ".join(attention_kernels(step)))


if __name__ == "__main__":
    main()
