"""Milliseconds per part of Mask R-CNN R50-FPN at 1,203 classes: a training step and an inference pass.

    python benchmarks/rcnn_speed.py                        R50-FPN, 640 x 640, one image, 2 threads
    python benchmarks/rcnn_speed.py --threads 1 --repeat 5
    python benchmarks/rcnn_speed.py --small                the network of the demo: 96 x 96, batches of 8
    python benchmarks/rcnn_speed.py --memory               peak memory of 300 masks in a picture of 2000 x 3000
    python benchmarks/rcnn_speed.py --compile              backbone and pyramid through torch.compile as well

Prints wall and processor time of every part (indented parts are contained in the one above). Processor time is the one
to compare on a machine that does something else besides. If detectron2 is importable, the same model with the same
weights runs there too, and the ratio is printed.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cvpods_ext.config.schema import Model
from cvpods_ext.modeling import box_stage, pooling, postprocess, proposals, rcnn, roi_heads
from cvpods_ext.modeling.assemble import mask_rcnn_fpn, resnet_fpn
from cvpods_ext.modeling.rcnn import RCNN
from cvpods_ext.modeling.small import SMALL, narrow_resnet_fpn
from cvpods_ext.structures import Batch, PolygonMasks, Targets

NUM_CLASSES, CANDIDATES = 1203, 15_000
# seconds of detectron2 main on two quiet cores: R50-FPN, 640 x 640, 1,203 classes, 15,000 candidates, 300 detections
DETECTRON2 = {
    "inference": 5.32,
    "backbone and pyramid": 0.63,
    "mask head": 3.63,
    "RoIAlign": 0.41,
    "training step": 8.33,
    "forward": 2.65,
    "backward": 5.60,
}


class Clock:
    """Wall and processor milliseconds by label, collected by wrapping functions for the time of a measurement."""

    def __init__(self, beside: dict[str, float] | None = None) -> None:
        self.beside = beside or {}
        self.times: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def part(self, label: str) -> Iterator[None]:
        """Time a block."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        spent = (1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))
        self.times.setdefault(label, []).append(spent)

    @contextmanager
    def watch(self, parts: dict[str, tuple[Any, str]]) -> Iterator[None]:
        """Time every call of `holder.name` under its label."""
        originals = [(holder, name, getattr(holder, name)) for holder, name in parts.values()]
        for (holder, name, original), label in zip(originals, parts, strict=True):
            setattr(holder, name, self._timed(original, label))
        try:
            yield
        finally:
            for holder, name, original in originals:
                setattr(holder, name, original)

    def _timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(label):
                return function(*args, **kwargs)

        return timed

    def show(self, title: str, repeat: int) -> None:
        """Median over the repetitions; several calls within one repetition are added up."""
        print(f"\n{title:44s} {'wall ms':>9s} {'cpu ms':>9s}", " detectron2 (quoted, 2 cores)" if self.beside else "")
        for label, spent in self.times.items():
            calls = max(1, len(spent) // repeat)
            rounds = [spent[i : i + calls] for i in range(0, len(spent), calls)]
            wall, cpu = (statistics.median(sum(one[k] for one in group) for group in rounds) for k in (0, 1))
            quoted = self.beside.get(label.strip(), 0) * 1e3
            print(f"{label:44s} {wall:9.1f} {cpu:9.1f}  {f'{quoted:.0f}' if quoted else ''}")


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
    settings = Model()
    if small:
        return mask_rcnn_fpn(settings, num_classes=num_classes, backbone=narrow_resnet_fpn(), recipe=SMALL)
    model = mask_rcnn_fpn(settings, num_classes=num_classes, backbone=resnet_fpn(50))
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


def measure_inference(model: RCNN, batch: Batch, repeat: int) -> None:
    """One inference pass by part, then the post-processing alone when every pair passes."""
    model.eval()
    set_candidates(model, batch, CANDIDATES * len(batch))
    head = model.roi_heads
    clock = Clock(DETECTRON2 if head.sampler.num_classes == NUM_CLASSES else None)
    parts = {
        "  normalise and pad": (model, "preprocess"),
        "  backbone and pyramid": (model.backbone, "forward"),
        "  proposals": (model.proposal_generator, "forward"),
        "    head": (model.proposal_generator.rpn_head, "forward"),
        "  box head and scores": (head.box_head, "forward"),
        "  RoIAlign": (pooling.RoIPooler, "__call__"),
        "  select: threshold, decode, suppress": (roi_heads, "select"),
        "  mask head": (head.mask_head, "forward"),
        "    upsample and predict": (head.mask_head, "_upsample"),
        "  paste and encode": (rcnn, "finish_all"),
    }
    with torch.no_grad():
        model(batch)
        with clock.watch(parts):
            for _ in range(repeat):
                with clock.part("inference"):
                    found = model(batch)
    clock.times = {"inference": clock.times.pop("inference"), **clock.times}
    clock.show(f"inference, {[len(one) for one in found]} detections", repeat)

    everything = Clock()
    head.selection = postprocess.Selection(score_threshold=0.0)
    with torch.no_grad(), everything.watch({"select when everything passes": (roi_heads, "select")}):
        for _ in range(repeat):
            model.detect(batch)
    everything.show("score threshold 0", repeat)


def measure_training(model: RCNN, batch: Batch, repeat: int) -> None:
    """One training step without the optimizer, by part."""
    model.train()
    head = model.roi_heads
    clock = Clock(DETECTRON2 if head.sampler.num_classes == NUM_CLASSES else None)
    parts = {
        "  backbone and pyramid": (model.backbone, "forward"),
        "  proposals and their losses": (model.proposal_generator, "forward"),
        "    match anchors": (proposals, "match"),
        "    draw anchors": (proposals, "sample"),
        "  sample RoIs": (head.sampler.__class__, "__call__"),
        "  box head": (head.box_head, "forward"),
        "  RoIAlign": (pooling.RoIPooler, "__call__"),
        "  classification loss": (head.classification_loss, "forward"),
        "  box loss": (box_stage, "box_loss"),
        "  mask head": (head.mask_head, "forward"),
        "  mask targets": (roi_heads, "mask_targets"),
    }
    torch.stack(list(model(batch).values())).sum().backward()
    with clock.watch(parts):
        for _ in range(repeat):
            model.zero_grad(set_to_none=True)
            with clock.part("training step"):
                with clock.part("forward"):
                    total = torch.stack(list(model(batch).values())).sum()
                with clock.part("backward"):
                    total.backward()
    first = ("training step", "backward", "forward")
    clock.times = {name: clock.times[name] for name in first} | clock.times
    clock.show(f"training step, batch of {len(batch)}", repeat)


def measure_memory() -> None:
    """Peak resident memory that post-processing adds for one large picture."""
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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = Clock()
    with clock.part("paste and encode 300 masks"):
        postprocess.finish(raw, target)
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    clock.show("one picture of 2000 x 3000", 1)
    print(
        f"peak memory added: {added / 1024:.0f} MiB (all bitmaps at once would be {count * height * width >> 20} MiB)"
    )


def beside_detectron2(model: RCNN, batch: Batch, repeat: int) -> None:
    """The same weights in detectron2, inference and training step."""
    from detectron2 import model_zoo  # pyright: ignore[reportMissingImports]
    from detectron2.modeling import build_model  # pyright: ignore[reportMissingImports]
    from detectron2.structures import BitMasks, Boxes, Instances  # pyright: ignore[reportMissingImports]

    settings = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    settings.MODEL.DEVICE, settings.MODEL.WEIGHTS = "cpu", ""
    settings.MODEL.ROI_HEADS.NUM_CLASSES, settings.INPUT.MASK_FORMAT = NUM_CLASSES, "bitmask"
    settings.MODEL.ROI_HEADS.SCORE_THRESH_TEST = model.roi_heads.selection.score_threshold
    settings.TEST.DETECTIONS_PER_IMAGE = model.roi_heads.selection.limit
    other = build_model(settings)
    other.load_state_dict(model.state_dict(), strict=False)
    records = []
    for image, target in zip(batch.images, batch.targets, strict=True):
        truth = Instances(target.size)
        truth.gt_boxes, truth.gt_classes = Boxes(target.boxes), target.labels
        assert target.masks is not None
        truth.gt_masks = BitMasks(target.masks.to_bitmasks(target.size).bitmaps)
        records.append({"image": image, "height": target.size[0], "width": target.size[1], "instances": truth})
    clock = Clock()
    for _ in range(repeat):
        with torch.no_grad(), clock.part("inference"):
            other.eval()(records)
        with clock.part("training step"):
            torch.stack(list(other.train()(records).values())).sum().backward()
    clock.show("detectron2, measured here", repeat)


def main() -> None:
    """Print the tables that the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="images per batch; default 1, or 8 with --small")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        measure_memory()
        return
    num_classes = 60 if options.small else NUM_CLASSES
    model = build(options.small, num_classes)
    count = options.batch or (8 if options.small else 1)
    batch = example(count, 96 if options.small else 640, num_classes, objects=4 if options.small else 12)
    measure_inference(model, batch, options.repeat)
    measure_training(model, batch, options.repeat)
    if importlib.util.find_spec("detectron2") and not options.small:
        set_candidates(model.eval(), batch, CANDIDATES)
        beside_detectron2(model, batch, options.repeat)
    if options.compile:
        model.backbone.compile()  # in place: the names of the parameters stay
        print("\nbackbone and pyramid compiled")
        measure_inference(model, batch, options.repeat)
        measure_training(model, batch, options.repeat)


if __name__ == "__main__":
    main()
