"""Time and memory of DINO at 1024 px: a training step and a test of one image, by part, and the matching.

    python benchmarks/dino_speed.py                                 ResNet-50 and EVA-02-B, two CPU threads
    python benchmarks/dino_speed.py --only R50 --work test match    some of it
    python benchmarks/dino_speed.py --device cuda --precision fp16

Every row is measured in a process of its own, in the order of the table: seconds are the least of the repetitions, the
processor's are their median, memory is the most that the process, or its GPU, ever held. Attention is the form in use,
and beside it the usual one with grid_sample (benchmarks/dino_attention.py). "match" is the assignment of 900 queries to
300 objects with 1,203 classes, for one image and the seven predictions of a step: costs on the device, the assignment
on the processor. Weights are random. Writes benchmarks/dino_speed.md and keeps rows that it does not measure again in
the json beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dino_attention import grid_sample_levels

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.engine.step import autocast
from cvpods_ext.modeling.detr import attention
from cvpods_ext.modeling.detr.matcher import MatchingCost, Objects, PendingPairs, Predictions
from cvpods_ext.report.table import Cell, Table, to_markdown
from cvpods_ext.runtime.files import read_json, write_json, write_text
from cvpods_ext.structures import Batch, Targets

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground" / "coco"
FOLDERS = {"R50": "dino.res50.4scale.coco.multiscale.12ep", "EVA-02-B": "dino.eva02_B.sfp.coco.lsj1024.12ep"}
SIDE, OBJECTS = 1024, 10
FORMS = ("in use", "grid_sample")
PARTS = ("backbone", "neck", "encoder", "proposals", "decoder", "losses", "backward", "update")
FACTS = ("network", "work", "attention", "device", "threads", "precision")
MATCH = {"queries": 900, "classes": 1203, "objects": 300, "predictions": 7}


def main() -> None:
    """Measure what is asked for in processes of their own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(FOLDERS), default=tuple(FOLDERS), metavar="NETWORK")
    parser.add_argument("--work", nargs="+", choices=("test", "train", "match"), default=("test", "train", "match"))
    parser.add_argument("--repeat", type=int, default=2, help="repetitions (default: 2)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)  # of the process of one row: network, work, form
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.row:
        network, work, form = given.row
        print(json.dumps(matching(given) if work == "match" else step_of(given, network, work, form)))
        return
    wanted = [(network, work, form) for network in given.only for work in given.work for form in FORMS]
    matches = [("", "match", "")] if "match" in given.work else []
    file = Path(__file__).with_suffix(".json")
    rows = read_json(file) if file.is_file() else []
    for one in [each for each in wanted if each[1] != "match"] + matches:
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--row", *one], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        new = json.loads(done.stdout.splitlines()[-1])
        print(new)
        rows = [old for old in rows if [old[key] for key in FACTS] != [new[key] for key in FACTS]] + [new]
        write_json(file, rows)
    write_text(file.with_suffix(".md"), "\n\n".join(map(to_markdown, tables(rows))) + "\n")


def tables(rows: list[dict[str, Any]]) -> list[Table]:
    """Steps by part, and the matching."""
    steps = [row for row in rows if row["work"] != "match"]
    keys = (*FACTS[:3], "seconds", "cpu_seconds", "peak_gib", *PARTS, *FACTS[3:])
    note = (
        f"torch {torch.__version__}; one image of {SIDE} px with {OBJECTS} objects; parts are wall seconds of the least"
    )
    matched = ("costs_seconds", "assignment_seconds", *MATCH, *FACTS[3:])
    return [
        Table(
            title="DINO at 1024 px, seconds",
            header=tuple(key.replace("_", " ") for key in keys),
            rows=tuple(tuple(Cell(str(row.get(key, "-"))) for key in keys) for row in steps),
            text_columns=3,
            notes=(note, "losses hold the matching; the processor assigns while the device computes other losses"),
        ),
        Table(
            title="Matching of one image with as many objects as LVIS has at most",
            header=tuple(key.replace("_", " ") for key in matched),
            rows=tuple(tuple(Cell(str(row[key])) for key in matched) for row in rows if row["work"] == "match"),
            text_columns=0,
        ),
    ]


def step_of(given: argparse.Namespace, network: str, work: str, form: str) -> dict[str, Any]:
    """Seconds of one kind of work, by part, and memory."""
    if form == "grid_sample":
        attention.sample_levels = grid_sample_levels
    experiment = load_experiment(PLAYGROUND / FOLDERS[network], [f"schedule.precision={given.precision}"])
    device, schedule = torch.device(given.device), experiment.config.schedule
    model = experiment.build_model().to(device).train(work == "train")
    draw = torch.Generator().manual_seed(0)
    corner, side = torch.rand(OBJECTS, 2, generator=draw) * 600, 50 + 300 * torch.rand(OBJECTS, 2, generator=draw)
    labels = torch.randint(0, 80, (OBJECTS,), generator=draw)
    target = Targets(torch.cat((corner, corner + side), 1), labels, 1, (SIDE, SIDE), (SIDE, SIDE))
    image = torch.randint(0, 256, (3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    batch = Batch([image], [target]).to(device)
    optimizer = build_optimizer(model, schedule)
    parts = Parts(model, device)

    def step() -> None:
        if work == "test":
            with torch.inference_mode(), autocast(device, schedule):
                model.detect(batch)
            return
        with autocast(device, schedule):
            losses = model(batch)
        with parts.of("backward"):
            torch.stack(list(losses.values())).sum().backward()
        with parts.of("update"):
            optimizer.step()
            optimizer.zero_grad()

    best, processor, spent = float("inf"), [], {}
    for turn in range(given.repeat + 1):
        parts.seconds.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        parts.wait()
        if turn:  # the first one warms up
            processor.append(time.process_time() - cpu)
            if time.perf_counter() - wall < best:
                best, spent = time.perf_counter() - wall, dict(parts.seconds)
    return {
        **facts(given, network, work, form),
        "seconds": round(best, 2),
        "cpu_seconds": round(statistics.median(processor), 2),
        "peak_gib": round(peak(given), 2),
        **{name: round(spent[name], 2) for name in PARTS if name in spent},
    }


class Parts:
    """Wall seconds of the parts of a model; a GPU is waited for at the borders of parts."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._cuda = device.type == "cuda"
        transformer = model.transformer
        for name, owner, method in (
            ("backbone", model.backbone, "forward"),
            ("neck", model.neck, "forward"),
            ("encoder", transformer, "encode"),
            ("proposals", transformer, "propose"),
            ("decoder", transformer, "decode"),
            ("losses", model.criterion, "forward"),
        ):
            setattr(owner, method, self._timed(name, getattr(owner, method)))

    def wait(self) -> None:
        """Until the device has done all."""
        if self._cuda:
            torch.cuda.synchronize()

    def of(self, name: str) -> _Timer:
        """Around a part."""
        return _Timer(self, name)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            with self.of(name):
                return function(*args, **options)

        return run


class _Timer:
    def __init__(self, parts: Parts, name: str) -> None:
        self._parts, self._name = parts, name

    def __enter__(self) -> None:
        self._parts.wait()
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._parts.wait()
        self._parts.seconds[self._name] += time.perf_counter() - self._started


def matching(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the costs and of the assignment."""
    draw, device = torch.Generator().manual_seed(0), torch.device(given.device)
    shape = (MATCH["predictions"], 1, MATCH["queries"])
    logits = torch.randn(*shape, MATCH["classes"], generator=draw) - 4
    boxes = 0.1 + 0.4 * torch.rand(*shape, 4, generator=draw)
    labels = torch.randint(0, MATCH["classes"], (1, MATCH["objects"]), generator=draw)
    truth = 0.1 + 0.4 * torch.rand(1, MATCH["objects"], 4, generator=draw)
    predictions = Predictions(logits.to(device), boxes.to(device))
    objects = Objects(labels.to(device), truth.to(device), (MATCH["objects"],))
    costs = assignment = float("inf")
    for _ in range(given.repeat + 1):
        started = time.perf_counter()
        found = MatchingCost()(predictions, objects)
        if given.device == "cuda":
            torch.cuda.synchronize()
        half = time.perf_counter()
        PendingPairs(found, objects.counts).result()
        costs, assignment = min(costs, half - started), min(assignment, time.perf_counter() - half)
    found = {"costs_seconds": round(costs, 3), "assignment_seconds": round(assignment, 3), **MATCH}
    return {**facts(given, "any", "match", ""), **found}


def facts(given: argparse.Namespace, network: str, work: str, form: str) -> dict[str, Any]:
    """What a row is of."""
    device = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    return dict(zip(FACTS, (network, work, form, device, given.threads, given.precision), strict=True))


def peak(given: argparse.Namespace) -> float:
    """The most memory in GiB."""
    if given.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
