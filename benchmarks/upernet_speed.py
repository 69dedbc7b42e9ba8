"""Time and memory of UPerNet on EVA-02: a training step, and a test by windows or in several scales.

    python benchmarks/upernet_speed.py                                 EVA-02-B and L at 512 px, two CPU threads
    python benchmarks/upernet_speed.py --only B --work train window    some of it
    python benchmarks/upernet_speed.py --device cuda --images 8 --precision fp16

A test is of one photo of 683 x 512 pixels, two windows; several scales are the six ratios of the published test, each
mirrored too. "head" is the decoder alone on random maps, beside the head of transformers with the same maps where that
is installed (pip install transformers), in turns. Weights are random. Every row is measured in a process of its own,
least of the repetitions; memory is the most that the process, or its GPU, ever held. Writes benchmarks/upernet_speed.md
and keeps rows that it does not measure again in the json beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.engine.step import autocast
from cvpods_ext.modeling.segmentation.heads import UPerHead
from cvpods_ext.report.table import Cell, Table, to_markdown
from cvpods_ext.runtime.files import read_json, write_json, write_text
from cvpods_ext.structures import Batch
from cvpods_ext.structures.segmentation import LabelMap
from cvpods_ext.tasks.segmentation import segmentation_config

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground" / "ade20k"
FOLDERS = {
    "B": "upernet.eva02_B.scales.ade20k.crop512.60k",
    "L": "upernet.eva02_L.scales.ade20k.crop512.80k",
}
SCALES = "upernet.eva02_L.scales.ade20k.crop512.multi_scale_test"
WORK = {"train": "training step, a crop", "window": "test, a photo", "scales": "test in six scales, a photo"}
HEAD = "head, a crop"
PHOTO = (512, 683)


def main() -> None:
    """Measure what is asked for in processes of their own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(FOLDERS), default=tuple(FOLDERS), metavar="SIZE")
    parser.add_argument("--work", nargs="+", choices=(*WORK, "head"), default=("train", "window", "head"))
    parser.add_argument("--images", type=int, default=2, help="crops of a training step (default: 2)")
    parser.add_argument("--repeat", type=int, default=2, help="repetitions (default: 2)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)  # of the process of one row: size and work
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.row:
        size, work = given.row
        print(json.dumps(head_row(given, size) if work == "head" else row(given, size, work)))
        return
    file = Path(__file__).with_suffix(".json")
    rows = read_json(file) if file.is_file() else []
    for size in given.only:
        for work in given.work:
            command = [sys.executable, __file__, *sys.argv[1:], "--row", size, work]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            for new in json.loads(done.stdout.splitlines()[-1]):
                print(new)
                rows = [old for old in rows if identity(old) != identity(new)] + [new]
            write_json(file, rows)
    write_text(file.with_suffix(".md"), to_markdown(table_of(rows)) + "\n")


def identity(row: dict) -> tuple:
    """What is measured; rows of equal identity replace each other."""
    return tuple(row[key] for key in ("network", "work", "device", "threads", "precision"))


def table_of(rows: list[dict]) -> Table:
    """All rows."""
    keys = ("network", "work", "seconds", "cpu_seconds", "peak_gib", "device", "threads", "precision")
    return Table(
        title="UPerNet on EVA-02 at 512 px, seconds for an image",
        header=tuple(key.replace("_", " ") for key in keys),
        rows=tuple(tuple(Cell(str(each[key])) for key in keys) for each in rows),
        text_columns=2,
        notes=(f"torch {torch.__version__}; random weights; memory is the most of the whole process",),
    )


def row(given: argparse.Namespace, size: str, work: str) -> list[dict]:
    """Seconds and memory of one kind of work."""
    folder = SCALES if work == "scales" else FOLDERS[size]
    experiment = load_experiment(PLAYGROUND / folder, [f"schedule.precision={given.precision}"])
    model = experiment.build_model().to(given.device)
    if work == "scales" and size == "B":
        raise SystemExit("the published test in several scales is of EVA-02-L; ask for --only L")
    generator = torch.Generator().manual_seed(0)
    device, schedule = torch.device(given.device), experiment.config.schedule
    side = segmentation_config(experiment).data.crop_side
    shape = (side, side) if work == "train" else PHOTO
    count = given.images if work == "train" else 1
    images = [torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8) for _ in range(count)]
    labels = torch.randint(0, 150, shape, generator=generator, dtype=torch.uint8)
    batch = Batch(images, [LabelMap(labels, i, shape, shape) for i in range(count)]).to(device)
    optimizer = build_optimizer(model, schedule) if work == "train" else None
    model.train(work == "train")

    def step() -> None:
        if optimizer is None:
            with torch.inference_mode(), autocast(device, schedule):
                model.predict(batch)
            return
        with autocast(device, schedule):
            losses = model(batch)
        (losses["loss_decode"] + losses["loss_aux"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds, cpu = least([step], given, warm=work != "scales")[0]
    return [described(given, f"EVA-02-{size}", WORK[work], seconds / count, cpu / count)]


def head_row(given: argparse.Namespace, size: str) -> list[dict]:
    """The decoder on four maps, ours and transformers', in turns."""
    width = {"B": 768, "L": 1024}[size]
    maps = [torch.randn(1, width, side, side, device=given.device) for side in (128, 64, 32, 16)]
    heads = {"ours": UPerHead([width] * 4, width, 150).to(given.device).eval()}
    if importlib.util.find_spec("transformers"):
        from transformers import UperNetConfig  # pyright: ignore[reportMissingImports]
        from transformers.models.upernet.modeling_upernet import UperNetHead  # pyright: ignore[reportMissingImports]

        config = UperNetConfig(hidden_size=width, num_labels=150, pool_scales=[1, 2, 3, 6])
        heads["transformers"] = UperNetHead(config, in_channels=[width] * 4).to(given.device).eval()

    def forward(head: torch.nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                head(maps)

        return run

    measured = least([forward(head) for head in heads.values()], given)
    return [
        described(given, f"UPerNet's {HEAD.split(',')[0]} for EVA-02-{size}, {name}", HEAD, *spent)
        for name, spent in zip(heads, measured, strict=True)
    ]


def least(
    steps: list[Callable[[], None]], given: argparse.Namespace, *, warm: bool = True
) -> list[tuple[float, float]]:
    """Wall and processor seconds of every step, which take turns; with `warm` one turn before is not counted."""
    spent: list[list[tuple[float, float]]] = [[] for _ in steps]
    for turn in range(int(not warm), given.repeat + 1):
        for step, times in zip(steps, spent, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            if given.device == "cuda":
                torch.cuda.synchronize()
            if turn:
                times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return [(min(wall for wall, _ in times), statistics.median(cpu for _, cpu in times)) for times in spent]


def described(given: argparse.Namespace, network: str, work: str, seconds: float, cpu: float) -> dict:
    """One row of the table."""
    cuda = given.device == "cuda"
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    return {
        "network": network,
        "work": work,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_gib": round(peak, 2),
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "threads": given.threads,
        "precision": given.precision,
    }


if __name__ == "__main__":
    main()
