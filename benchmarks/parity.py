"""What the comparisons with recorded runs share: one recorded folder, one compared tensor, the table of all.

A folder holds a tiny network's weights, inputs and every intermediate result of the reference detector; the README
beside the folders says how they were made. golden_parity.py and eva02_parity.py build the same network of our parts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pycocotools.mask as coco_mask
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.detection.box_stage import BoxStage
from cvpods_ext.modeling.detection.mask_head import MaskHead
from cvpods_ext.modeling.detection.postprocess import RawDetections, finish
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.runtime.files import write_text
from cvpods_ext.structures import Batch, PolygonMasks, Targets

SAMPLING = {"all": (100_000, 1.0, 100_000, 1.0), "firstk": (64, 0.1, 12, 0.25)}
EQUAL = 0.0
FLOATS = 5e-6  # what the reference itself repeats to, of a tensor's largest value
LOSSES = 1e-5
GRADIENTS = 1e-3  # of a gradient's own norm
MASK_ROUNDING = 1e-3  # of a mask probability, after boxes and masks were each rounded

MakeLoss = Callable[[], ClassificationLoss]


@dataclass(frozen=True)
class Row:
    """One compared tensor: largest absolute difference, that divided by the largest recorded value, and its limit."""

    name: str
    absolute: float
    relative: float
    tolerance: float

    @property
    def met(self) -> bool:
        """Whether the relative difference is within the tolerance."""
        return self.relative <= self.tolerance


def compare(name: str, ours: Tensor, recorded: np.ndarray | float, tolerance: float = FLOATS) -> Row:
    """Shapes must agree; whole numbers (labels, classes, pixels) must be equal."""
    recorded = np.asarray(recorded)
    tolerance = tolerance if np.issubdtype(recorded.dtype, np.floating) else EQUAL
    theirs, ours = torch.from_numpy(recorded.astype(np.float64)), ours.detach().double()
    if ours.shape != theirs.shape:
        return impossible(f"{name}: shape {tuple(ours.shape)} instead of {tuple(theirs.shape)}")
    if not torch.equal(ours.isfinite(), theirs.isfinite()):
        return impossible(f"{name}: other entries are finite")
    ours, theirs = ours[ours.isfinite()], theirs[theirs.isfinite()]
    if ours.numel() == 0:
        return Row(name, 0.0, 0.0, tolerance)
    difference = (ours - theirs).abs().max().item()
    return Row(name, difference, difference / max(theirs.abs().max().item(), 1e-12), tolerance)


def impossible(name: str) -> Row:
    """A row for what cannot be compared; it meets no tolerance."""
    return Row(name, math.inf, math.inf, EQUAL)


def in_index_order(shape: Sequence[int], device: torch.device) -> Tensor:
    """Priorities by which a sampler takes the first boxes there are, as in the recorded runs."""
    return torch.linspace(1, 0.5, shape[-1], device=device, dtype=torch.float64).float().expand(tuple(shape))


class Golden:
    """One recorded folder; subclasses build its network."""

    image_name: str
    num_classes: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cascade = "cascade" in folder.name
        self.meta = json.loads((folder / "meta.json").read_text())
        self.inputs = np.load(folder / "inputs.npz")
        self.inference = np.load(folder / "inference.npz")
        self.train = np.load(folder / "train.npz")
        self.grad_norms = json.loads((folder / "grad_norms.json").read_text())

    def model(self, sampling: str = "all", loss: MakeLoss = SoftmaxCrossEntropy, **changes: Any) -> RCNN:
        """The tiny detector with the recorded weights; `sampling` names how anchors and RoIs are drawn in training."""
        raise NotImplementedError

    def weights(self) -> dict[str, Tensor]:
        """The recorded state dict."""
        return load_file(self.folder / "weights.safetensors")

    def settings(self, sampling: str, **changes: Any) -> Detector:
        """Settings that all recorded detectors share, with `changes`."""
        anchors, anchor_fraction, rois, roi_fraction = SAMPLING[sampling]
        common: dict[str, Any] = dict(
            anchor_sizes=(8, 16, 32, 64, 128),
            anchors_per_image=anchors,
            anchor_foreground=anchor_fraction,
            proposals_per_level=(500, 300),
            proposals=(200, 100),
            rois_per_image=rois,
            roi_foreground=roi_fraction,
            mask_width=32,
            class_agnostic_boxes=self.cascade,
            nms_threshold=0.5,
            detections_per_image=50,
        )
        return Detector(**common | changes)

    def batch(self, masks: str = "polygon") -> Batch:
        """Both images; `masks` is polygon, bitmask, or polygon_second_image_empty."""
        images, targets = [], []
        for i in range(2):
            image = torch.from_numpy(self.inputs[self.image_name.format(i)])
            size = (image.shape[1], image.shape[2])
            keep = slice(0, 0) if masks.endswith("empty") and i == 1 else slice(None)
            polygons = PolygonMasks.from_lists(self.meta["gt"]["polygons"][i][keep])
            images.append(image)
            targets.append(
                Targets(
                    boxes=torch.tensor(self.meta["gt"]["boxes_xyxy"][i][keep], dtype=torch.float32).reshape(-1, 4),
                    labels=torch.tensor(self.meta["gt"]["classes"][i][keep], dtype=torch.int64),
                    image_id=i,
                    size=size,
                    original_size=tuple(self.inputs["output_hw"][i].tolist()),
                    masks=polygons.to_bitmasks(size) if masks == "bitmask" else polygons,
                )
            )
        return Batch(images, targets)

    def loss(self, kind: str) -> MakeLoss:
        """Maker of a recorded classification loss; the record drew the federated classes of largest weight."""
        if kind == "softmax_ce":
            return SoftmaxCrossEntropy
        if kind == "sigmoid_ce":
            return SigmoidCrossEntropy
        drawn = int(kind.removeprefix("sigmoid_fed"))
        counts = torch.from_numpy(self.inputs["fed_loss_cls_weights"]) ** 2
        return lambda: FederatedLoss(counts, drawn, noise=torch.zeros_like)


Entered = tuple[int, BoxStage, Tensor, Tensor, Tensor]


def through_stages(model: RCNN, features: Sequence[Tensor], image_sizes: Tensor) -> Iterator[Entered]:
    """Test time, stage by stage: its number, the stage, boxes that enter it (R, 4), features (R, D), logits (R, C + 1).

    All proposals of both images, one after the other.
    """
    proposals, _ = model.proposal_generator(features, image_sizes)
    image, column = proposals.valid.nonzero(as_tuple=True)
    boxes, heads = proposals.boxes[image, column], model.roi_heads
    stages: Sequence[Any] = getattr(heads, "stages", None) or [heads.stage]
    for k, stage in enumerate(stages):
        pooled = stage.head(features, boxes, image)
        logits = stage.predictor(pooled)
        yield k, stage, boxes, pooled, logits
        if len(stages) > 1:
            boxes = stage.decode(pooled, boxes, logits[:, :-1].argmax(dim=1))
            boxes = torch.minimum(boxes.clamp(min=0), image_sizes[image])


def proposal_rows(model: RCNN, features: Sequence[Tensor], image_sizes: Tensor, recorded: Any) -> Iterator[Row]:
    """Test-time proposals of both images."""
    proposals, _ = model.proposal_generator(features, image_sizes)
    for i in range(2):
        yield compare(f"proposals{i}_boxes", proposals.boxes[i], recorded[f"proposals{i}_boxes"])
        yield compare(f"proposals{i}_logits", proposals.logits[i], recorded[f"proposals{i}_logits"])


def mask_logits_row(
    head: MaskHead | None, features: Sequence[Tensor], boxes: Tensor, recorded: np.ndarray, tolerance: float = FLOATS
) -> Row:
    """Logits of every class for a few boxes (M, 4) of the first image, against (M, C, S, S)."""
    assert head is not None
    count, classes = recorded.shape[:2]
    every = torch.arange(classes).repeat(count)
    logits = head(features, boxes.repeat_interleave(classes, 0), torch.zeros_like(every), every)
    return compare("mask_logits_first3", logits.view(count, classes, *logits.shape[1:]), recorded, tolerance)


def pixel_row(name: str, raw: RawDetections, target: Targets, packed: np.ndarray) -> Row:
    """Pasted masks pixel by pixel, against bits packed over the flattened picture.

    A pixel whose probability is within MASK_ROUNDING of 0.5 may fall on either side: how a processor rounds decides.
    """
    height, width = target.original_size
    recorded = np.unpackbits(packed, axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)
    surely_in, perhaps_in = (_pasted(raw, target, shift) for shift in (-MASK_ROUNDING, MASK_ROUNDING))
    if len(perhaps_in) != len(recorded):
        return impossible(f"{name}: {len(perhaps_in)} masks instead of {len(recorded)}")
    wrong = (surely_in & ~recorded) | (recorded & ~perhaps_in)
    return compare(name, torch.from_numpy(wrong), np.zeros_like(recorded))


def _pasted(raw: RawDetections, target: Targets, shift: float) -> np.ndarray:
    """(M, height, width) masks in the original picture when every probability is moved by `shift`."""
    assert raw.mask_probabilities is not None
    final = finish(replace(raw, mask_probabilities=raw.mask_probabilities + shift), target)
    return np.stack([coco_mask.decode(cast(Any, one)) for one in final.masks or []]).astype(bool)


def loss_rows(golden: Golden, keys: Iterable[str] | None = None, gradients: float = GRADIENTS) -> Iterator[Row]:
    """Losses of recorded settings (all if `keys` is None), the gradient norms, and gradients where recorded whole."""
    for key in golden.meta["train_losses"] if keys is None else keys:
        recorded = golden.meta["train_losses"][key]
        sampling, kind, masks = key.split("/")
        model = golden.model(sampling, golden.loss(kind)).train()
        losses = model(golden.batch(masks))
        assert losses.keys() == recorded.keys(), (losses.keys(), recorded.keys())
        for name, loss in losses.items():
            yield compare(f"{key}: {name}", loss, recorded[name], LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        yield gradient_row(key, model, golden.grad_norms[key], gradients)
        if key == "all/sigmoid_ce/polygon":
            yield from whole_gradients(model, golden.train, gradients)


def gradient_row(key: str, model: nn.Module, recorded: dict[str, float | None], tolerance: float) -> Row:
    """The parameter whose gradient norm is furthest off, relative to its own norm."""
    worst = Row(f"{key}: gradient norms", 0.0, 0.0, tolerance)
    largest = max(value for value in recorded.values() if value)
    for name, parameter in model.named_parameters():
        norm = recorded.get(name)  # absent or null: frozen
        assert (norm is None) == (parameter.grad is None), name
        if norm is not None and parameter.grad is not None:
            off = abs(parameter.grad.double().norm().item() - norm)
            relative = off / max(norm, 1e-6 * largest)
            if relative > worst.relative:
                worst = replace(worst, absolute=off, relative=relative)
    return worst


def whole_gradients(model: RCNN, recorded: Any, tolerance: float) -> Iterator[Row]:
    """The gradients that were recorded entry by entry."""
    prefix = "grad_all_sigmoid_polygon/"
    for key in recorded:
        if key.startswith(prefix):
            gradient = model.get_parameter(key.removeprefix(prefix)).grad
            assert gradient is not None, key
            yield compare(key, gradient, recorded[key], tolerance)


def write_table(path: Path, command: str, parts: dict[str, list[Row]]) -> int:
    """Markdown with one line per tensor and a summary per recorded folder; returns 1 if a tolerance is missed."""
    lines = [f"Written by `{command}`.", ""]
    lines += ["Absolute: largest difference of any entry. Relative: that divided by the largest recorded value, or for"]
    lines += ["gradient norms that of the parameter furthest off, divided by its own norm. Tolerances are relative; 0"]
    lines += ["asks for equality, as labels, classes and pixels do.", ""]
    for title, rows in parts.items():
        met = sum(row.met for row in rows)
        lines += [f"## {title}", "", f"{len(rows)} tensors, {met} within their tolerance.", ""]
        lines += ["| tensor | absolute | relative | tolerance |", "|---|---:|---:|---:|"]
        for row in rows:
            mark = "" if row.met else " **missed**"
            lines += [f"| {row.name} | {row.absolute:.1e} | {row.relative:.1e}{mark} | {row.tolerance:.0e} |"]
        lines += [""]
        print(f"{title}: {met} of {len(rows)} tensors within their tolerance")
    write_text(path, "\n".join(lines))
    return int(not all(row.met for rows in parts.values() for row in rows))
