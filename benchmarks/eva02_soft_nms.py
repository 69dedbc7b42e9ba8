"""Time of Soft-NMS for one image of LVIS and one of COCO size, against a sequential loop over classes and boxes.

    python benchmarks/eva02_soft_nms.py [--device cuda] [--out benchmarks/eva02_soft_nms.md]

Boxes come in clusters, as proposals of one object do; scores above the threshold fall on few of the classes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cvpods_ext.modeling.detection.soft_nms import MIN_SCORE, Decay, soft_nms
from cvpods_ext.report.table import Cell, Table, to_markdown
from cvpods_ext.runtime.files import write_text
from cvpods_ext.structures.boxes import pairwise_iou

IOU, SIGMA = 0.6, 0.5  # of the published evaluations

# name: proposals, objects, classes of the data set, likely classes of an object, least score
SIZES = {
    "LVIS, 1,203 classes, score > 0.02": (1000, 40, 1203, 4, 0.02),
    "LVIS, 1,203 classes, score > 0.001": (1000, 40, 1203, 60, 0.001),
    "COCO, 80 classes, score > 0": (1000, 40, 80, 80, 0.0),
}


def scene(proposals: int, objects: int, classes: int, likely: int, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (P, 4), scores (P,) and classes (P,) of one image."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(objects, 2, generator=generator) * 1000
    side = 30 + 200 * torch.rand(objects, 2, generator=generator)
    of = torch.randint(objects, (proposals,), generator=generator)
    shift = 1 + 0.15 * torch.randn(proposals, 2, generator=generator)
    middle, half = centre[of] + 0.1 * side[of] * torch.randn(proposals, 2, generator=generator), side[of] * shift / 2
    boxes = torch.cat((middle - half, middle + half), dim=1)
    names = torch.stack([torch.randperm(classes, generator=generator)[:likely] for _ in range(objects)])
    # most scores are tiny: about a tenth reaches the least score that Soft-NMS keeps
    scores = least + (1 - least) * torch.rand(proposals * likely, generator=generator) ** 60
    return boxes.repeat_interleave(likely, dim=0), scores, names[of].flatten()


def sequential(boxes: Tensor, scores: Tensor, classes: Tensor, decay: Decay) -> dict[int, float]:
    """The rule one box at a time: position and lowered score of what remains."""
    remaining: dict[int, float] = {}
    for label in classes.unique():
        rows = ((classes == label) & (scores >= MIN_SCORE)).nonzero()[:, 0]
        score, overlap = scores[rows].clone(), pairwise_iou(boxes[rows], boxes[rows])
        alive = torch.ones(len(score), dtype=torch.bool)
        while alive.any():
            best = int(torch.where(alive, score, -1.0).argmax())
            alive[best] = False
            remaining[int(rows[best])] = float(score[best])
            lowered = 1 - overlap[best] * (overlap[best] >= IOU) if decay == "linear" else _gaussian(overlap[best])
            score = torch.where(alive, score * lowered, score)
            alive &= score >= MIN_SCORE
    return remaining


def _gaussian(overlap: Tensor) -> Tensor:
    return torch.exp(-(overlap**2) / SIGMA)


def milliseconds(work: Callable[[], object], device: torch.device, runs: int) -> float:
    """Least of some runs: of the GPU's clock, or what the process spent on the CPU, whatever else the machine does."""
    times = []
    for _ in range(runs):
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        started = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - started)
    return 1000 * min(times)


def row(name: str, decay: Decay, device: torch.device) -> tuple[str, ...]:
    """Times of both, and how far apart their results are."""
    boxes, scores, classes = scene(*SIZES[name])
    work = partial(soft_nms, *(x.to(device) for x in (boxes, scores, classes)), decay=decay, iou_threshold=IOU)
    ours, lowered = work()
    found = dict(zip(ours.tolist(), lowered.tolist(), strict=True))
    started = time.process_time()
    expected = sequential(boxes, scores, classes, decay)
    slow = 1000 * (time.process_time() - started)
    differing = found.keys() ^ expected.keys()
    largest = max(abs(found[i] - expected[i]) for i in found.keys() & expected.keys())
    starting = int((scores >= MIN_SCORE).sum())
    numbers = (f"{milliseconds(work, device, 5):.1f}", f"{slow:.1f}", str(starting), str(len(found)))
    return (name, decay, *numbers, str(len(differing)), f"{largest:.1e}")


def main(report: Callable[[str], None] = print) -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, metavar="MD")
    given = parser.parse_args()
    device = torch.device(given.device)
    header = ("scene", "decay", "ms", "ms one by one", "boxes", "remain", "only in one", "largest difference of scores")
    decays: tuple[Decay, ...] = ("linear", "gaussian")
    rows = [tuple(map(Cell, row(name, decay, device))) for name in SIZES for decay in decays]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}"
    text = to_markdown(Table(f"Soft-NMS, {where}", header, tuple(rows), text_columns=2))
    report(text)
    if given.out:
        write_text(given.out, text)


if __name__ == "__main__":
    main()
