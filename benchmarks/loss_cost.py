"""What each classification loss adds to a training step, against plain cross entropy.

    python benchmarks/loss_cost.py                      1,203 classes, 512 RoIs of each of 2 images, on the CPU
    python benchmarks/loss_cost.py --device cuda

One step is forward and backward to the logits. The losses take turns in every round. The ratio compares the fastest
rounds, which other work on the machine disturbs least; the median is printed too, and both are written to
benchmarks/loss_cost.json.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from cvpods_ext.data import category_tables
from cvpods_ext.modeling.losses.bags import BalancedGroupSoftmax
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSigmoid, BalancedSoftmax
from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss
from cvpods_ext.modeling.losses.eql import EqualizationLoss
from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.federated import FederatedLoss, VerifiedFederatedLoss
from cvpods_ext.modeling.losses.gol import GumbelDropLoss, GumbelLoss
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.runtime.files import write_json
from cvpods_ext.structures import Targets

NUM_IMAGES = 100_170  # training images of LVIS v1 that have annotations


def losses(images: Tensor, instances: Tensor) -> dict[str, ClassificationLoss]:
    """Every loss for LVIS v1 counts; the first is what the others are compared with."""
    return {
        "cross entropy": SoftmaxCrossEntropy(),
        "GRW": GroupReweightedCrossEntropy(images),
        "balanced softmax": BalancedSoftmax(images),
        "BAGS": BalancedGroupSoftmax(instances),
        "Seesaw": SeesawLoss(len(images)),
        "sigmoid": SigmoidCrossEntropy(),
        "balanced sigmoid": BalancedSigmoid(images, NUM_IMAGES),
        "federated": FederatedLoss(images),
        "federated, verified": VerifiedFederatedLoss(),
        "EQL": EqualizationLoss(images, NUM_IMAGES),
        "EQLv2": EqualizationLossV2(len(images)),
        "ECM": EffectiveClassMarginLoss(instances),
        "Gumbel": GumbelLoss(),
        "Gumbel, DropLoss": GumbelDropLoss(images, NUM_IMAGES),
    }


def batch(images: Tensor, rois: int, device: torch.device) -> tuple[Tensor, LossContext]:
    """Labels of two images: a quarter foreground, drawn by image count, and LVIS-like verified lists."""
    num_classes = len(images)
    labels, targets = [], []
    for i in range(2):
        present = torch.multinomial(images, 4)
        foreground = present[torch.randint(4, (rois // 4,))]
        labels.append(torch.cat((foreground, torch.full((rois - len(foreground),), num_classes))))
        targets.append(
            Targets(
                boxes=torch.zeros(4, 4),
                labels=present,
                image_id=i,
                size=(1, 1),
                original_size=(1, 1),
                negative_labels=torch.randperm(num_classes)[:9],
            ).to(device)
        )
    image_of_roi = torch.arange(2).repeat_interleave(rois)
    return torch.cat(labels).to(device), LossContext(image_of_roi.to(device), targets)


def milliseconds(step: Callable[[], None], device: torch.device) -> float:
    """Wall time of one step, device included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def _step(loss: ClassificationLoss, logits: Tensor, labels: Tensor, context: LossContext) -> None:
    logits.grad = None
    loss(logits, labels, context).backward()


def measure(rounds: int, rois: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of every loss in every round."""
    torch.manual_seed(0)
    table = category_tables.load("lvis_v1_train")
    images = torch.tensor([float(category.image_count) for category in table])
    instances = torch.tensor([float(category.instance_count) for category in table])
    labels, context = batch(images, rois, device)
    steps: dict[str, Callable[[], None]] = {}
    for name, loss in losses(images, instances).items():
        loss.to(device)
        width = len(images) + 1 + getattr(loss, "extra_logits", 0)
        logits = torch.randn(2 * rois, width, device=device, requires_grad=True)
        steps[name] = partial(_step, loss, logits, labels, context)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 3):  # the first rounds warm caches up
        for name, step in steps.items():
            elapsed = milliseconds(step, device)
            if turn >= 3:
                times[name].append(elapsed)
    return times


def main() -> None:
    """Measure, print, write."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--rounds", type=int, default=40)
    flags.add_argument("--rois", type=int, default=512, help="per image, of two images")
    arguments = flags.parse_args()
    device = torch.device(arguments.device)
    times = measure(arguments.rounds, arguments.rois, device)
    plain = min(next(iter(times.values())))
    rows = {
        name: {
            "fastest_ms": round(min(each), 3),
            "median_ms": round(median(each), 3),
            "ratio": round(min(each) / plain, 2),
        }
        for name, each in times.items()
    }
    print(f"{'loss':22s}{'fastest':>9s}{'median':>9s}{'ratio':>8s}   (milliseconds)")
    for name, row in rows.items():
        print(f"{name:22s}{row['fastest_ms']:9.2f}{row['median_ms']:9.2f}{row['ratio']:8.2f}")
    setting = {
        "classes": 1203,
        "rois": 2 * arguments.rois,
        "rounds": arguments.rounds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    write_json(Path(__file__).with_suffix(".json"), {"setting": setting, "losses": rows})


if __name__ == "__main__":
    main()
