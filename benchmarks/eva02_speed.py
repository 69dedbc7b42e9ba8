"""Time and memory of an EVA-02 detector: inference or training steps, on a CPU or a GPU, with random weights.

    python benchmarks/eva02_speed.py --folder playground/lvis1.0/<name>             inference of one image
    python benchmarks/eva02_speed.py --folder ... --train --device cuda --precision bf16 --images 2
    ... --recompute         activation checkpointing, --no-recompute keeps all; else as net.py says
    ... --compile           transformer and pyramid compiled, as by schedule.compile
    ... --out benchmarks/eva02_speed.json           add the row there and write the table beside it

The image is as large as the experiment's test images may be. On a GPU the attention kernels are named. Random weights
let every score pass, the worst case; Soft-NMS over a thousand classes has a benchmark of its own, eva02_soft_nms.py:
measure such folders with model.suppression=hard.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.distributed.parallel import compile_backbone
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.engine.step import autocast
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.report.table import Cell, Table, to_markdown
from cvpods_ext.runtime.files import write_json, write_text
from cvpods_ext.structures import Batch, PolygonMasks, Targets

OBJECTS = 12  # per image, about LVIS's mean


@dataclass(frozen=True)
class Setting:
    """What is measured; rows of equal settings replace each other."""

    experiment: str
    work: str
    side: int
    images: int
    precision: str
    recompute: bool
    compiled: bool
    device: str
    threads: int


@dataclass(frozen=True)
class Measured:
    """Least seconds per image of a few steps; the highest memory, allocated on the GPU or resident in the process."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    attention: str
    torch: str


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
    """Allocated on the GPU since the last reset, or resident in the process, at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step_of(
    model: RCNN, batch: Batch, precision: AbstractContextManager[object], optimizer: torch.optim.Optimizer | None
) -> Callable[[], None]:
    """One inference, or one training step where there is an optimizer."""

    def infer() -> None:
        with torch.inference_mode(), precision:
            model(batch)

    def train() -> None:
        assert optimizer is not None
        with precision:
            losses: dict[str, Tensor] = model(batch)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return train if optimizer else infer


def attention_kernels(step: Callable[[], None]) -> str:
    """Names of the GPU kernels that a step spends on attention, the longest first."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
    words = ("flash", "fmha", "attention", "cudnn_generated_fort_native_sdpa")
    kernels = [event for event in recorded.key_averages() if event.device_type.name == "CUDA"]
    found = [event for event in kernels if any(word in event.key.lower() for word in words)]
    return "; ".join(event.key for event in sorted(found, key=lambda event: -event.device_time_total))


def measure(step: Callable[[], None], device: torch.device, steps: int, images: int) -> Measured:
    """Warm up once, then take the best of `steps`."""
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    wall, cpu = [], []
    for _ in range(steps):
        _wait(device)
        started, spent = time.perf_counter(), time.process_time()
        step()
        _wait(device)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - spent)
    kernels = attention_kernels(step) if device.type == "cuda" else ""
    return Measured(min(wall) / images, min(cpu) / images, peak_gib(device), kernels, torch.__version__)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run(given: argparse.Namespace) -> tuple[Setting, Measured]:
    """Build what the command line describes, and measure it."""
    device = torch.device(given.device)
    overrides = [f"schedule.precision={given.precision}", *given.overrides]
    experiment = load_experiment(given.folder, overrides)
    config = experiment.config
    assert isinstance(config, DetectionConfig)
    torch.manual_seed(0)
    model: RCNN = experiment.build_model().to(device).train(given.train)
    assert isinstance(model.backbone, SimplePyramid), f"{experiment.name} has no transformer"
    net = model.backbone.net
    if given.recompute is not None:
        net.recompute = given.recompute
    if given.compile:
        compile_backbone(model)
    optimizer = build_optimizer(model, config.schedule) if given.train else None
    precision = autocast(device, config.schedule) if given.precision != "fp32" else nullcontext()
    batch = batch_of(given.images, config.data.lsj_side).to(device)
    setting = Setting(
        experiment=experiment.name,
        work="training step" if given.train else "inference",
        side=config.data.lsj_side,
        images=given.images,
        precision=given.precision,
        recompute=given.train and net.recompute,
        compiled=given.compile,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        threads=torch.get_num_threads(),
    )
    return setting, measure(step_of(model, batch, precision, optimizer), device, given.steps, given.images)


def add(path: Path, setting: Setting, measured: Measured) -> None:
    """Put the row into the json at `path`, in place of one of equal setting, and write the table beside it."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = [row for row in rows if row["setting"] != asdict(setting)]
    rows.append({"setting": asdict(setting), "measured": asdict(measured)})
    write_json(path, rows)
    write_text(path.with_suffix(".md"), to_markdown(table(rows)))


def table(rows: list[dict[str, dict[str, object]]]) -> Table:
    """The rows with numbers rounded for reading."""
    lines = [(*row["setting"].values(), *row["measured"].values()) for row in rows]
    header = (*rows[0]["setting"], *rows[0]["measured"])
    cells = tuple(tuple(Cell(_text(value)) for value in line) for line in lines)
    return Table("EVA-02, seconds per image and memory", tuple(name.replace("_", " ") for name in header), cells)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--recompute", action=argparse.BooleanOptionalAction)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--out", type=Path, metavar="JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_args()


def main(report: Callable[[str], None] = print) -> None:
    """Print, and keep if asked to."""
    given = arguments()
    setting, measured = run(given)
    report(f"{setting}\n{measured}")
    if given.out:
        add(given.out, setting, measured)


if __name__ == "__main__":
    main()
