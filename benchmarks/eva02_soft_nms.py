"""Time of Soft-NMS for one image of LVIS and one of COCO size, against a sequential loop over classes and boxes.

    python benchmarks/eva02_soft_nms.py [--device cuda]

Boxes come in clusters, as proposals of one object do; scores above the threshold fall on few of the classes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cvpods_ext.modeling.soft_nms import MIN_SCORE, soft_nms
from cvpods_ext.structures.boxes import pairwise_iou

# name: proposals, objects, classes of the data set, likely classes of an object, least score
SIZES = {
    "LVIS, 1,203 classes, score > 0.02": (1000, 40, 1203, 4, 0.02),
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


def sequential(boxes: Tensor, scores: Tensor, classes: Tensor) -> int:
    """The rule one box at a time, with vectorised IoU; returns how many remain."""
    remaining = 0
    for label in classes.unique():
        rows = (classes == label) & (scores >= MIN_SCORE)
        box, score = boxes[rows], scores[rows].clone()
        overlap = pairwise_iou(box, box)
        alive = torch.ones(len(score), dtype=torch.bool)
        while alive.any():
            best = int(torch.where(alive, score, -1.0).argmax())
            alive[best] = False
            remaining += 1
            score = torch.where(alive & (overlap[best] >= 0.6), score * (1 - overlap[best]), score)
            alive &= score >= MIN_SCORE
    return remaining


def measure(work: Callable[[], object], device: torch.device) -> float:
    """Least seconds of five runs."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)


def main(report: Callable[[str], None] = print) -> None:
    """Print milliseconds and how many detections remain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    for name, size in SIZES.items():
        boxes, scores, classes = scene(*size)
        on_device = [tensor.to(device) for tensor in (boxes, scores, classes)]
        starting = int((scores >= MIN_SCORE).sum())
        for decay in ("linear", "gaussian"):
            kept, _ = soft_nms(*on_device, decay=decay, iou_threshold=0.6)
            seconds = measure(partial(soft_nms, *on_device, decay=decay, iou_threshold=0.6), device)
            report(f"{name:36s} {decay:9s} {1000 * seconds:9.1f} ms, {len(kept)} of {starting} remain")
        started = time.perf_counter()
        remaining = sequential(boxes, scores, classes)
        report(f"{name:36s} one by one {1000 * (time.perf_counter() - started):8.1f} ms, {remaining} remain (linear)")


if __name__ == "__main__":
    main()
