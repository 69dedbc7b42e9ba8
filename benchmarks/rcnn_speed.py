"""Milliseconds per part of Mask R-CNN R50-FPN at 1,203 classes: a training step and an inference pass.

    python benchmarks/rcnn_speed.py                        R50-FPN, 640 x 640, one image, 2 threads
    python benchmarks/rcnn_speed.py --threads 1 --repeat 5
    python benchmarks/rcnn_speed.py --before OLD.json      beside the figures of an earlier report
    python benchmarks/rcnn_speed.py --compile              backbone and pyramid through torch.compile as well
    python benchmarks/rcnn_speed.py --small --out FILE     the network of the demo: 96 x 96, batches of 8

Writes benchmarks/rcnn_speed.json and the table benchmarks/rcnn_speed.md: wall and processor time of every part, beside
what detectron2 was quoted to take, and the peak memory of 300 masks in a picture of 2000 x 3000. Processor time is the
one to compare on a machine that does something else besides. If detectron2 is importable, the same weights run there
too.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import multiprocessing
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from speed_report import Clock, Times, to_markdown
from torch import Tensor

from cvpods_ext.config.bases import MINI
from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.detection import box_stage, pooling, postprocess, rcnn, roi_heads, rpn
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.necks.fpn import narrow_resnet_fpn, resnet_fpn
from cvpods_ext.runtime.files import write_json, write_text
from cvpods_ext.structures import Batch, PolygonMasks, Targets

NUM_CLASSES, CANDIDATES = 1203, 15_000
INFERENCE, EVERYTHING, TRAINING = "inference", "post-processing, every pair passes", "training step"
SELECT = "select: threshold, decode, suppress"
# Milliseconds of detectron2 main on two quiet cores, as quoted: R50-FPN, 640 x 640, 1,203 classes, 15,000 candidates,
# 300 detections.
QUOTED = {
    INFERENCE: {INFERENCE: 5320, "backbone and pyramid": 630, "mask head": 3630, "RoIAlign": 410, SELECT: 105},
    EVERYTHING: {SELECT: 3840},
    TRAINING: {TRAINING: 8330, "forward": 2650, "backward": 5600},
}


def example(count: int, side: int, num_classes: int, objects: int = 12) -> Batch:
    """Noise with star-shaped objects of 40 vertices: what costs time does not depend on the picture."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for i in range(count):
        centre = torch.rand(objects, 2, generator=generator) * side * 0.8 + side * 0.1
        radius = side * (0.05 + 0.15 * torch.rand(objects, 40, generator=generator))
        angle = torch.linspace(0, 6.28, 40)
        x = (centre[:, :1] + radius * angle.cos()).clamp(0, side)
        y = (centre[:, 1:] + radius * angle.sin()).clamp(0, side)
        boxes = torch.stack((x.amin(1), y.amin(1), x.amax(1), y.amax(1)), dim=1)
        polygons = [[torch.stack(pair, dim=1).flatten().tolist()] for pair in zip(x, y, strict=True)]
        labels = torch.randint(0, num_classes, (objects,), generator=generator)
        images.append(torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator))
        masks = PolygonMasks.from_lists(polygons)
        targets.append(Targets(boxes, labels, i, (side, side), (side, side), masks))
    return Batch(images, targets)


def build(small: bool, num_classes: int) -> RCNN:
    """The model; random frozen norms would let activations explode, so the residual branches are damped."""
    torch.manual_seed(0)
    if small:
        assert isinstance(MINI.model, Detector)
        settings = replace(MINI.model, pixel_mean=Detector().pixel_mean, pixel_std=Detector().pixel_std)
        return mask_rcnn_fpn(settings, num_classes=num_classes, backbone=narrow_resnet_fpn())
    model = mask_rcnn_fpn(Detector(), num_classes=num_classes, backbone=resnet_fpn(50))
    for name, parameter in model.backbone.named_parameters():
        if name.endswith("conv3.weight"):
            parameter.data.mul_(0.2)
    return model


def set_candidates(model: RCNN, batch: Batch, wanted: int) -> None:
    """Choose the score threshold so that about `wanted` pairs of RoI and class pass."""
    seen: list[Tensor] = []
    select = postprocess.select

    def look(scores: Tensor, *rest: Any) -> Any:
        seen.append(scores)
        return select(scores, *rest)

    roi_heads.select = look
    try:
        model.detect(batch)
    finally:
        roi_heads.select = select
    values = torch.cat([scores.flatten() for scores in seen])
    threshold = values.topk(min(wanted, len(values))).values[-1].item()
    model.roi_heads.selection = postprocess.Selection(score_threshold=threshold)


def of_backbone(model: RCNN) -> tuple[Any, str]:
    """What is called when the backbone is; a compiled one does not call its `forward`."""
    return model.backbone, "forward" if model.backbone._compiled_call_impl is None else "_compiled_call_impl"


@torch.no_grad()
def measure_inference(model: RCNN, batch: Batch, repeat: int) -> dict[str, Times]:
    """One inference pass by part, then the post-processing alone when every pair passes."""
    model.eval()
    set_candidates(model, batch, CANDIDATES * len(batch))
    head, clock, everything = model.roi_heads, Clock(), Clock()
    parts = {
        "  normalise and pad": (model, "preprocess"),
        "  backbone and pyramid": of_backbone(model),
        "  proposals": (model.proposal_generator, "forward"),
        "    head": (model.proposal_generator.rpn_head, "forward"),
        "  box head and scores": (head.box_head, "forward"),
        "  " + SELECT: (roi_heads, "select"),
        "  mask head": (head.mask_head, "forward"),
        "    upsample and predict": (head.mask_head, "_upsample"),
        "  RoIAlign": (pooling.RoIPooler, "__call__"),
        "  paste and encode": (rcnn, "finish_all"),
    }
    model(batch)
    with clock.watch(parts):
        for _ in range(repeat):
            with clock.part(INFERENCE):
                model(batch)
    head.selection = postprocess.Selection(score_threshold=0.0)
    alone = {SELECT: (roi_heads, "select")}
    with everything.watch(alone):
        for _ in range(repeat):
            model.detect(batch)
    inference = clock.times({INFERENCE: None} | parts, repeat)
    return {INFERENCE: inference, EVERYTHING: everything.times(alone, repeat)}


def measure_training(model: RCNN, batch: Batch, repeat: int) -> dict[str, Times]:
    """One training step without the optimizer, by part."""
    model.train()
    head, clock = model.roi_heads, Clock()
    parts = {
        "    backbone and pyramid": of_backbone(model),
        "    proposals and their losses": (model.proposal_generator, "forward"),
        "      match anchors": (rpn, "match"),
        "      draw anchors": (rpn, "sample"),
        "    sample RoIs": (head.sampler.__class__, "__call__"),
        "    box head": (head.box_head, "forward"),
        "    classification loss": (head.classification_loss, "forward"),
        "    box loss": (box_stage, "box_loss"),
        "    mask head": (head.mask_head, "forward"),
        "    mask targets": (roi_heads, "mask_targets"),
        "    RoIAlign": (pooling.RoIPooler, "__call__"),
    }
    torch.stack(list(model(batch).values())).sum().backward()
    with clock.watch(parts):
        for _ in range(repeat):
            model.zero_grad(set_to_none=True)
            with clock.part(TRAINING):
                with clock.part("  forward"):
                    total = torch.stack(list(model(batch).values())).sum()
                with clock.part("  backward"):
                    total.backward()
    return {TRAINING: clock.times({TRAINING: None, "  backward": None, "  forward": None} | parts, repeat)}


def measure_memory() -> dict[str, float]:
    """MiB of this process, which must be fresh, before and at the peak of post-processing one large picture."""
    generator = torch.Generator().manual_seed(0)
    height, width, count = 2000, 3000, 300
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.5
    side = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.6 + 20
    raw = postprocess.RawDetections(
        torch.cat((corner, corner + side), dim=1),
        torch.rand(count, generator=generator),
        torch.zeros(count, dtype=torch.int64),
        torch.rand(count, 28, 28, generator=generator),
    )
    raw.boxes[0] = torch.tensor([0.0, 0, width, height])
    target = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0, (height, width), (height, width))
    gc.collect()
    resident = status_mib("VmRSS")
    postprocess.finish(raw, target)
    peak = status_mib("VmHWM")
    return {
        f"resident before {count} masks are pasted into {height} x {width} and encoded": resident,
        "highest since the process began, imports included": peak,
        "so post-processing added at most": peak - resident,
        "all bitmaps at once would add": count * height * width / 2**20,
    }


def status_mib(field: str) -> float:
    """A memory field of this process; getrusage would count what its parent held when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def load_detectron2(model: RCNN) -> Any:
    """The same detector with the same weights in detectron2."""
    from detectron2 import model_zoo  # pyright: ignore[reportMissingImports]
    from detectron2.modeling import build_model  # pyright: ignore[reportMissingImports]

    settings = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    settings.MODEL.DEVICE, settings.MODEL.WEIGHTS = "cpu", ""
    settings.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    settings.MODEL.ROI_HEADS.SCORE_THRESH_TEST = model.roi_heads.selection.score_threshold
    settings.MODEL.ROI_HEADS.NMS_THRESH_TEST = model.roi_heads.selection.nms_threshold
    settings.TEST.DETECTIONS_PER_IMAGE = model.roi_heads.selection.limit
    other = build_model(settings)
    missing = other.load_state_dict(model.state_dict(), strict=False).missing_keys
    assert all(key.endswith(("pixel_mean", "pixel_std")) for key in missing), missing
    return other


def as_records(batch: Batch) -> list[dict[str, Any]]:
    """The batch in detectron2's layout."""
    from detectron2.structures import Boxes, Instances  # pyright: ignore[reportMissingImports]
    from detectron2.structures import PolygonMasks as Polygons  # pyright: ignore[reportMissingImports]

    records = []
    for image, target in zip(batch.images, batch.targets, strict=True):
        truth = Instances(target.size)
        truth.gt_boxes, truth.gt_classes = Boxes(target.boxes), target.labels
        assert isinstance(target.masks, PolygonMasks)
        truth.gt_masks = Polygons(target.masks.to_lists())
        records.append({"image": image, "height": target.size[0], "width": target.size[1], "instances": truth})
    return records


def measure_detectron2(other: Any, records: list[dict[str, Any]], repeat: int) -> dict[str, dict[str, float]]:
    """Wall milliseconds of an inference pass and a training step, by title and part, after one round to warm up."""
    from detectron2.utils.events import EventStorage  # pyright: ignore[reportMissingImports]

    clock = Clock()
    for turn in range(repeat + 1):
        if turn == 1:
            clock = Clock()
        with torch.no_grad(), clock.part(INFERENCE):
            other.eval()(records)
        other.train().zero_grad(set_to_none=True)
        with EventStorage(), clock.part(TRAINING):  # its heads log into one
            with clock.part("forward"):
                total = torch.stack(list(other(records).values())).sum()
            with clock.part("backward"):
                total.backward()
    wall = {part: row["wall_ms"] for part, row in clock.times(clock.spent, repeat).items()}
    return {INFERENCE: {INFERENCE: wall.pop(INFERENCE)}, TRAINING: wall}


def compiler_is_missing() -> str:
    """Why torch.compile cannot work on this machine's processor, or an empty string."""
    wanted = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if any(map(shutil.which, wanted)):
        return ""
    return f"--compile needs a C++ compiler and found no {' or '.join(wanted)}: install one, or name it in CXX"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report that the options ask for."""
    num_classes = 60 if options.small else NUM_CLASSES
    model = build(options.small, num_classes)
    count = options.batch or (8 if options.small else 1)
    side = 96 if options.small else 640
    batch = example(count, side, num_classes, objects=4 if options.small else 12)
    report: dict[str, Any] = {
        "setting": {
            "command": " ".join(["python", "benchmarks/rcnn_speed.py", *sys.argv[1:]]),
            "images": f"{count} of {side} x {side}, {num_classes} classes",
            "threads": options.threads,
            "processor": f"{platform.machine()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
            "repetitions": options.repeat,
        }
    }
    tables = measure_inference(model, batch, options.repeat) | measure_training(model, batch, options.repeat)
    if importlib.util.find_spec("detectron2") and not options.small:
        set_candidates(model.eval(), batch, CANDIDATES)
        report["beside"] = measure_detectron2(load_detectron2(model), as_records(batch), options.repeat)
    if options.compile:
        model.backbone.compile()  # in place: the names of the parameters stay
        compiled = measure_inference(model, batch, options.repeat) | measure_training(model, batch, options.repeat)
        compiled.pop(EVERYTHING)
        tables |= {f"{title}, backbone and pyramid compiled": rows for title, rows in compiled.items()}
    return report | {"tables": tables, "memory": in_fresh_process(measure_memory)}


def in_fresh_process(function: Callable[[], Any]) -> Any:
    """Its result, from a process that has not yet used any memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="images per batch; default 1, or 8 with --small")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--before", type=Path, help="json of an earlier run, shown beside this one")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.compile and (problem := compiler_is_missing()):
        parser.error(problem)
    before = json.loads(options.before.read_text()) if options.before else None
    torch.set_num_threads(options.threads)
    report = measure(options)
    text = to_markdown(report, {} if options.small else QUOTED, before)
    write_json(options.out, report)
    write_text(options.out.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
