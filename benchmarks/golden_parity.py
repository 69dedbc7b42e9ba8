"""How far the R-CNN family is from recorded runs of the reference detector, tensor by tensor.

    python benchmarks/golden_parity.py ../shared/golden

Prints the largest absolute difference of every recorded tensor, also relative to the tensor's largest value. The
folders hold a tiny network's weights, inputs and every intermediate result; their README says how they were made.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import torch
from safetensors.torch import load_file
from torch import Tensor

from cvpods_ext.config.schema import Model
from cvpods_ext.modeling.assemble import Recipe, cascade_mask_rcnn_fpn, mask_rcnn_fpn
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.modeling.matching import Matches, match, pad_targets, sample
from cvpods_ext.modeling.necks.fpn import FPN
from cvpods_ext.modeling.postprocess import finish
from cvpods_ext.modeling.rcnn import RCNN
from cvpods_ext.structures import Batch, PolygonMasks, Targets

NUM_CLASSES = 12
STAGES = (Stage(2, 32, 8), Stage(2, 64, 16), Stage(2, 128, 32), Stage(2, 160, 40))
SAMPLING = {"all": (100_000, 1.0, 100_000, 1.0), "firstk": (64, 0.1, 12, 0.25)}


@dataclass(frozen=True)
class Row:
    """One compared tensor: largest absolute difference, and that divided by the largest recorded value."""

    name: str
    absolute: float
    relative: float


def compare(name: str, ours: Tensor, recorded: np.ndarray | float) -> Row:
    """Shapes must agree; integers are compared as numbers."""
    theirs = torch.as_tensor(np.asarray(recorded)).double()
    ours = ours.detach().double()
    if ours.shape != theirs.shape:
        return Row(f"{name}: shape {tuple(ours.shape)} instead of {tuple(theirs.shape)}", float("inf"), float("inf"))
    difference = (ours - theirs).abs().max().item() if ours.numel() else 0.0
    return Row(name, difference, difference / max(theirs.abs().max().item() if ours.numel() else 0.0, 1e-12))


def in_index_order(shape: torch.Size, device: torch.device) -> Tensor:
    """Priorities by which a sampler takes the first boxes there are, as in the recorded runs."""
    return torch.linspace(1, 0.5, shape[-1], device=device, dtype=torch.float64).float().expand(tuple(shape))


class Golden:
    """One recorded folder: its inputs, and the same network built of our parts with the recorded weights."""

    image_name = "image{}_uint8_bgr"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cascade = "cascade" in folder.name
        self.meta = json.loads((folder / "meta.json").read_text())
        self.inputs = np.load(folder / "inputs.npz")
        self.inference = np.load(folder / "inference.npz")
        self.train = np.load(folder / "train.npz")
        self.grad_norms = json.loads((folder / "grad_norms.json").read_text())

    def model(
        self,
        sampling: str = "all",
        loss: Callable[[], ClassificationLoss] = SoftmaxCrossEntropy,
        stride_in_1x1: bool = True,
    ) -> RCNN:
        """The tiny detector; `sampling` names how anchors and RoIs are drawn in training."""
        anchors, anchor_fraction, rois, roi_fraction = SAMPLING[sampling]
        recipe = Recipe(
            anchor_sizes=(8, 16, 32, 64, 128),
            anchors_per_image=anchors,
            anchor_foreground=anchor_fraction,
            top_per_level=(500, 300),
            proposals=(200, 100),
            rois_per_image=rois,
            roi_foreground=roi_fraction,
            box_fc=(64, 64),
            mask_width=32,
            priorities=in_index_order,
        )
        settings = Model(
            pixel_std=(57.375, 57.12, 58.395),
            score_threshold=0.05,
            nms_threshold=0.5,
            detections_per_image=50,
        )
        backbone = FPN(ResNet(STAGES, stem_channels=16, stride_in_1x1=stride_in_1x1), 32)
        if self.cascade:
            model = cascade_mask_rcnn_fpn(
                settings,
                num_classes=NUM_CLASSES,
                backbone=backbone,
                classification_loss=loss,
                recipe=recipe,
            )
        else:
            model = mask_rcnn_fpn(
                settings,
                num_classes=NUM_CLASSES,
                backbone=backbone,
                classification_loss=loss(),
                recipe=recipe,
            )
        weights = load_file(self.folder / "weights.safetensors")
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert all("cell_anchors" in key for key in missing), missing
        assert all(key.endswith("fed_loss_cls_weights") for key in unexpected), unexpected
        return model

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


@torch.no_grad()
def feature_rows(golden: Golden) -> Iterator[Row]:
    """Normalised input, ResNet stages, pyramid; also with the stride in the 3x3 convolution."""
    model, batch = golden.model().eval(), golden.batch()
    images, _ = model.preprocess(batch.images)
    yield compare("preprocessed", images, golden.inference["preprocessed"])
    for i, map_ in enumerate(model.backbone.bottom_up(images) if "res2" in golden.inference else []):
        yield compare(f"res{i + 2}", map_, golden.inference[f"res{i + 2}"])
    for i, map_ in enumerate(model.backbone(images)):
        yield compare(f"p{i + 2}", map_, golden.inference[f"p{i + 2}"])
    if "stride_in_3x3_p2" in golden.inference:
        for i, map_ in enumerate(golden.model(stride_in_1x1=False).backbone(images)):
            yield compare(f"stride_in_3x3_p{i + 2}", map_, golden.inference[f"stride_in_3x3_p{i + 2}"])


@torch.no_grad()
def head_rows(golden: Golden) -> Iterator[Row]:
    """Proposals, and per stage class logits and box deltas."""
    model, batch = golden.model().eval(), golden.batch()
    images, limits = model.preprocess(batch.images)
    features = model.backbone(images)
    proposals, _ = model.proposal_generator(features, limits)
    for i in range(2):
        yield compare(f"proposals{i}_boxes", proposals.boxes[i], golden.inference[f"proposals{i}_boxes"])
        yield compare(f"proposals{i}_logits", proposals.logits[i], golden.inference[f"proposals{i}_logits"])
    image, column = proposals.valid.nonzero(as_tuple=True)
    boxes = proposals.boxes[image, column]
    stages = model.roi_heads.stages if golden.cascade else [model.roi_heads.stage]
    for k, stage in enumerate(stages):
        pooled = stage.head(features, boxes, image)
        logits = stage.predictor(pooled)
        yield compare(f"stage{k}_class_logits", logits, golden.inference[f"stage{k}_class_logits"])
        yield compare(f"stage{k}_deltas", stage.predictor.bbox_pred(pooled), golden.inference[f"stage{k}_deltas"])
        if golden.cascade:
            boxes = stage.decode(pooled, boxes, logits[:, :-1].argmax(dim=1))
            boxes = torch.minimum(boxes.clamp(min=0), limits[image])


@torch.no_grad()
def detection_rows(golden: Golden, setting: str) -> Iterator[Row]:
    """Final instances before and after the move to the original picture; `setting` is softmax or sigmoid."""
    loss = SoftmaxCrossEntropy if setting == "softmax" else SigmoidCrossEntropy
    model, batch = golden.model(loss=loss).eval(), golden.batch()
    images, limits = model.preprocess(batch.images)
    features = model.backbone(images)
    proposals, _ = model.proposal_generator(features, limits)
    recorded = golden.inference
    found = model.roi_heads.detect(features, proposals, limits)
    if setting == "softmax":
        head, first = model.roi_heads.mask_head, found[0].boxes[:3]
        every = torch.arange(NUM_CLASSES).repeat(3)
        logits = head(features, first.repeat_interleave(NUM_CLASSES, 0), torch.zeros_like(every), every)
        logits = logits.view(3, NUM_CLASSES, *logits.shape[1:])
        yield compare("mask_logits_first3", logits, recorded["mask_logits_first3_instances_all_classes"])
    for i, raw in enumerate(found):
        name = f"{setting}_img{i}"
        yield compare(f"{name}_boxes", raw.boxes, recorded[f"{name}_boxes"])
        yield compare(f"{name}_scores", raw.scores, recorded[f"{name}_scores"])
        yield compare(f"{name}_classes", raw.labels, recorded[f"{name}_classes"])
        assert raw.mask_probabilities is not None
        masks = raw.mask_probabilities[:20, None]
        yield compare(f"{name}_maskprob", masks, recorded[f"{name}_maskprob_first20"])
        final, name = finish(raw, batch.targets[i]), f"{setting}_post_img{i}"
        yield compare(f"{name}_boxes", final.boxes, recorded[f"{name}_boxes"])
        yield compare(f"{name}_classes", final.labels, recorded[f"{name}_classes"])
        height, width = final.size
        packed = recorded[f"{name}_masks_packed"]
        bitmaps = np.unpackbits(packed, axis=1)[:, : height * width].reshape(-1, height, width)
        ours = np.stack([coco_mask.decode(mask) for mask in final.masks or []])
        yield compare(f"{name}_masks", torch.from_numpy(ours), bitmaps)


@torch.no_grad()
def sampling_rows(golden: Golden) -> Iterator[Row]:
    """Anchor labels, training proposals and the RoIs that enter the heads."""
    for sampling in SAMPLING:
        model, batch = golden.model(sampling).train(), golden.batch()
        images, limits = model.preprocess(batch.images)
        features, truth = model.backbone(images), pad_targets(batch.targets)
        rpn = model.proposal_generator
        proposals, _ = rpn(features, limits)
        anchors = torch.cat(rpn.anchor_generator(features))
        matches: Matches = match(truth, anchors, low=0.3, high=0.7, keep_best=True)
        drawn = sample(matches.label, rpn.anchors_per_image, rpn.foreground_fraction, rpn.priorities)
        rois = model.roi_heads.sampler(proposals, truth)
        for i in range(2):
            labels = torch.full((len(anchors),), -1)
            labels[drawn.index[i, drawn.valid[i]]] = drawn.foreground[i, drawn.valid[i]].long()
            yield compare(f"{sampling}_rpn_labels_img{i}", labels, golden.train[f"{sampling}_rpn_labels_img{i}"])
            if sampling == "all":
                name = f"train_proposals_img{i}"
                yield compare(f"{name}_boxes", proposals.boxes[i], golden.train[f"{name}_boxes"])
                yield compare(f"{name}_logits", proposals.logits[i], golden.train[f"{name}_logits"])
            yield from roi_rows(golden, sampling, i, rois)


def roi_rows(golden: Golden, sampling: str, image: int, rois) -> Iterator[Row]:
    """Boxes and labels as sets sorted by coordinates, since foreground and background interleave in the record."""
    mine = rois.image == image
    name = f"{sampling}_roi_%s_img{image}"
    theirs = {key: golden.train[name % key] for key in ("boxes", "gt_classes", "gt_boxes")}
    order = np.lexsort(np.round(theirs["boxes"], 3).T)
    ours = np.lexsort(np.round(rois.boxes[mine].numpy(), 3).T)
    yield compare(name % "boxes", rois.boxes[mine][ours], theirs["boxes"][order])
    yield compare(name % "gt_classes", rois.labels[mine][ours], theirs["gt_classes"][order])
    foreground = theirs["gt_classes"][order] < NUM_CLASSES
    yield compare(name % "gt_boxes", rois.truth_boxes[mine][ours][foreground], theirs["gt_boxes"][order][foreground])


def loss_rows(golden: Golden) -> Iterator[Row]:
    """Every recorded loss, and the gradient norm of every parameter."""
    counts = torch.from_numpy(golden.inputs["fed_loss_cls_weights"]) ** 2
    kinds: dict[str, Callable[[], ClassificationLoss]] = {
        "softmax_ce": SoftmaxCrossEntropy,
        "sigmoid_ce": SigmoidCrossEntropy,
        "sigmoid_fed8": lambda: FederatedLoss(counts, 8, noise=torch.zeros_like),  # the record drew the heaviest
        "sigmoid_fed4": lambda: FederatedLoss(counts, 4, noise=torch.zeros_like),
    }
    for key, recorded in golden.meta["train_losses"].items():
        sampling, kind, masks = key.split("/")
        model = golden.model(sampling, kinds[kind]).train()
        losses = model(golden.batch(masks))
        assert losses.keys() == recorded.keys(), (losses.keys(), recorded.keys())
        for name, loss in losses.items():
            yield compare(f"{key}: {name}", loss, recorded[name])
        torch.stack(list(losses.values())).sum().backward()
        yield gradient_row(key, model, golden.grad_norms[key])


def gradient_row(key: str, model: RCNN, recorded: dict[str, float | None]) -> Row:
    """The parameter whose gradient norm is furthest off, relative to its own norm."""
    worst = Row(f"{key}: gradient norms", 0.0, 0.0)
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


def all_rows(golden: Golden) -> Iterator[Row]:
    """Everything that was recorded for one network."""
    for part in (feature_rows, head_rows, sampling_rows, loss_rows):
        yield from part(golden)
    for setting in ("softmax", "sigmoid"):
        yield from detection_rows(golden, setting)


def main(report: Callable[[str], None] = print) -> None:
    """Print one line per tensor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("golden", type=Path, help="folder that holds d2_tiny_mask_rcnn and d2_tiny_cascade_mask_rcnn")
    folder = parser.parse_args().golden
    for name in ("d2_tiny_mask_rcnn", "d2_tiny_cascade_mask_rcnn"):
        report(f"{name:70s} {'absolute':>10s} {'relative':>10s}")
        for row in all_rows(Golden(folder / name)):
            report(f"  {row.name:68s} {row.absolute:10.2e} {row.relative:10.2e}")


if __name__ == "__main__":
    main()
