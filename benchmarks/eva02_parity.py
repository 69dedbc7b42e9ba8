"""How far EVA-02's detector is from recorded runs of its authors' code, tensor by tensor.

    python benchmarks/eva02_parity.py ../shared/golden

Prints the largest absolute difference of every recorded tensor, also relative to the tensor's largest value. The
backbone's own tensors are compared in tests/modeling/test_eva02.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import torch
from golden_parity import SAMPLING, Golden, Row, compare, gradient_row, in_index_order
from safetensors.torch import load_file
from torch import Tensor

from cvpods_ext.config import Config, override
from cvpods_ext.modeling.assemble import Recipe, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.postprocess import RawDetections, finish
from cvpods_ext.modeling.rcnn import RCNN
from cvpods_ext.modeling.weights import load_into

NUM_CLASSES = 20
RGB = dict(pixel_mean=(123.675, 116.28, 103.53), pixel_std=(58.395, 57.12, 57.375))
EVERYTHING = 100_000  # Soft-NMS is recorded without a limit
INFERENCE = {
    "nms": {},
    "nms_maskness": dict(maskness_threshold=0.5),
    "softnms_linear_classwise": dict(suppression="linear", nms_threshold=0.6, detections_per_image=EVERYTHING),
    "softnms_gaussian_classwise": dict(suppression="gaussian", nms_threshold=0.6, detections_per_image=EVERYTHING),
    "softnms_linear_classwise_override0": dict(
        suppression="linear", nms_threshold=0.6, detections_per_image=EVERYTHING, score_threshold=0.0
    ),
    "softnms_linear_classwise_maskness": dict(
        suppression="linear", nms_threshold=0.6, detections_per_image=EVERYTHING, maskness_threshold=0.5
    ),
    "softmax_nms": {},
}


class EvaGolden(Golden):
    """The recorded tiny EVA-02 detector."""

    image_name = "image{}_uint8_rgb"

    def detector(
        self, sampling: str = "all", loss: Callable[[], ClassificationLoss] = SigmoidCrossEntropy, **settings: object
    ) -> RCNN:
        """Our parts with the recorded weights; `settings` change fields of the config's model section."""
        anchors, anchor_fraction, rois, roi_fraction = SAMPLING[sampling]
        recipe = Recipe(
            anchor_sizes=(8, 16, 32, 64, 128),
            anchors_per_image=anchors,
            anchor_foreground=anchor_fraction,
            top_per_level=(500, 300),
            proposals=(200, 100),
            rois_per_image=rois,
            roi_foreground=roi_fraction,
            box_convs=(32,) * 4,
            box_fc=(64,),
            mask_width=32,
            head_norm="LN",
            rpn_convs=2,
            float32_heads=True,
            priorities=in_index_order,
        )
        chosen = dict(score_threshold=0.15, nms_threshold=0.5, detections_per_image=50) | settings
        net = eva02_of(Size(96, 4, 3), image_side=128, window=4, global_blocks=(1, 3))
        model = cascade_mask_rcnn_fpn(
            override(Config(), model=RGB | chosen).model,
            num_classes=NUM_CLASSES,
            backbone=SimplePyramid(net, 32),
            classification_loss=loss,
            recipe=recipe,
        )
        weights = load_file(self.folder / "weights.safetensors")
        report = load_into(model, weights, "weights.safetensors")
        assert not report.missing
        assert not report.skipped
        assert all(name.endswith("fed_loss_cls_weights") for name in report.unexpected), report.unexpected
        return model


@torch.no_grad()
def proposal_rows(golden: EvaGolden) -> Iterator[Row]:
    """Normalised input, raw RPN maps, anchors and proposals."""
    model, batch = golden.detector().eval(), golden.batch()
    images, limits = model.preprocess(batch.images)
    yield compare("preprocessed", images, np.load(golden.folder / "backbone.npz")["preprocessed"])
    features = model.backbone(images)
    head, recorded = model.proposal_generator.rpn_head, golden.inference
    for level, map_ in enumerate(features, start=2):
        hidden = head.conv(map_)
        yield compare(f"rpn_objectness_p{level}", head.objectness_logits(hidden), recorded[f"rpn_objectness_p{level}"])
        yield compare(f"rpn_deltas_p{level}", head.anchor_deltas(hidden), recorded[f"rpn_deltas_p{level}"])
    anchors = model.proposal_generator.anchor_generator(features)
    for level in (4, 6):
        yield compare(f"anchors_p{level}", anchors[level - 2], recorded[f"anchors_p{level}"])
    proposals, _ = model.proposal_generator(features, limits)
    for i in range(2):
        yield compare(f"proposals{i}_boxes", proposals.boxes[i], recorded[f"proposals{i}_boxes"])
        yield compare(f"proposals{i}_logits", proposals.logits[i], recorded[f"proposals{i}_logits"])


@torch.no_grad()
def stage_rows(golden: EvaGolden) -> Iterator[Row]:
    """Boxes entering every stage, its logits and deltas, the averaged scores, and mask logits of all classes."""
    model, batch = golden.detector().eval(), golden.batch()
    images, limits = model.preprocess(batch.images)
    features = model.backbone(images)
    proposals, _ = model.proposal_generator(features, limits)
    image, column = proposals.valid.nonzero(as_tuple=True)
    boxes, scores, recorded = proposals.boxes[image, column], [], golden.inference
    for k, stage in enumerate(model.roi_heads.stages):
        for i in range(2):
            yield compare(f"stage{k}_in_boxes{i}", boxes[image == i], recorded[f"stage{k}_in_boxes{i}"])
        pooled = stage.head(features, boxes, image)
        logits = stage.predictor(pooled)
        scores.append(logits.sigmoid())
        yield compare(f"stage{k}_class_logits", logits, recorded[f"stage{k}_class_logits"])
        yield compare(f"stage{k}_deltas", stage.predictor.bbox_pred(pooled), recorded[f"stage{k}_deltas"])
        boxes = stage.decode(pooled, boxes, logits[:, :-1].argmax(dim=1))
        boxes = torch.minimum(boxes.clamp(min=0), limits[image])
    yield compare("avg_scores_sigmoid", torch.stack(scores).mean(dim=0), recorded["avg_scores_sigmoid"])
    first = torch.from_numpy(recorded["nms_img0_boxes"][:3]).repeat_interleave(NUM_CLASSES, 0)
    every = torch.arange(NUM_CLASSES).repeat(3)
    head = model.roi_heads.mask_head
    logits = head(features, first, torch.zeros_like(every), every)
    logits = logits.view(3, NUM_CLASSES, *logits.shape[1:])
    yield compare("mask_logits_first3", logits, recorded["mask_logits_first3_instances_all_classes"])


@torch.no_grad()
def detection_rows(golden: EvaGolden, setting: str) -> Iterator[Row]:
    """Final instances of one recorded inference setting, in network pixels and in the original picture."""
    loss = SoftmaxCrossEntropy if setting.startswith("softmax") else SigmoidCrossEntropy
    model, batch = golden.detector(loss=loss, **INFERENCE[setting]).eval(), golden.batch()
    for i, raw in enumerate(model.detect(batch)):
        recorded = {
            key.removeprefix(f"{setting}_img{i}_"): golden.inference[key]
            for key in golden.inference
            if key.startswith(f"{setting}_img{i}_")
        }
        yield from matched_rows(f"{setting}_img{i}", raw, recorded)
        name = f"{setting}_post_img{i}"
        if f"{name}_boxes" in golden.inference:
            yield from final_rows(golden, name, raw, i)


def matched_rows(name: str, raw: RawDetections, recorded: dict[str, np.ndarray]) -> Iterator[Row]:
    """Instances matched by class and box, since scores may be tied and rescored ones are recorded unsorted."""
    boxes, classes = torch.from_numpy(recorded["boxes"]), torch.from_numpy(recorded["classes"])
    if len(raw.labels) != len(classes):
        yield Row(f"{name}: {len(raw.labels)} instances instead of {len(classes)}", float("inf"), float("inf"))
        return
    distance = (raw.boxes[:, None] - boxes).abs().amax(dim=2)
    distance = distance.masked_fill(raw.labels[:, None] != classes, torch.inf)
    ours = distance.argmin(dim=0)
    unmatched = len(classes) - len(ours.unique())
    yield compare(f"{name}_unmatched", torch.tensor(float(unmatched)), 0.0)
    yield compare(f"{name}_boxes", raw.boxes[ours], recorded["boxes"])
    yield compare(f"{name}_scores", raw.scores[ours], recorded["scores"])
    yield compare(f"{name}_classes", raw.labels[ours], recorded["classes"])
    for key in recorded:
        if key.startswith("maskprob_first") and raw.mask_probabilities is not None:
            count = len(recorded[key])
            yield compare(f"{name}_masks", raw.mask_probabilities[ours[:count], None], recorded[key])


def final_rows(golden: EvaGolden, name: str, raw: RawDetections, i: int) -> Iterator[Row]:
    """Boxes and pixels after the move to the original picture."""
    final = finish(raw, golden.batch().targets[i])
    recorded = golden.inference
    placed = RawDetections(final.boxes, final.scores, final.labels)
    fields = {key: recorded[f"{name}_{key}"] for key in ("boxes", "scores", "classes")}
    yield from matched_rows(name, placed, fields)
    if f"{name}_masks_packed" in recorded:
        height, width = final.size
        packed = recorded[f"{name}_masks_packed"]
        bitmaps = np.unpackbits(packed, axis=1)[:, : height * width].reshape(-1, height, width)
        ours = np.stack([coco_mask.decode(mask) for mask in final.masks or []])
        yield compare(f"{name}_masks", torch.from_numpy(ours), bitmaps)


def loss_rows(golden: EvaGolden, keys: Iterable[str]) -> Iterator[Row]:
    """The losses of recorded settings, the gradient norm of every parameter, and whole gradients where recorded."""
    counts = torch.from_numpy(golden.inputs["fed_loss_cls_weights"]) ** 2
    kinds: dict[str, Callable[[], ClassificationLoss]] = {
        "softmax_ce": SoftmaxCrossEntropy,
        "sigmoid_ce": SigmoidCrossEntropy,
        "sigmoid_fed12": lambda: FederatedLoss(counts, 12, noise=torch.zeros_like),  # the record drew the heaviest
        "sigmoid_fed4": lambda: FederatedLoss(counts, 4, noise=torch.zeros_like),
    }
    for key in keys:
        recorded = golden.meta["train_losses"][key]
        sampling, kind, masks = key.split("/")
        model = golden.detector(sampling, kinds[kind]).train()
        losses = model(golden.batch(masks))
        assert losses.keys() == recorded.keys(), (losses.keys(), recorded.keys())
        for name, loss in losses.items():
            yield compare(f"{key}: {name}", loss, recorded[name])
        torch.stack(list(losses.values())).sum().backward()
        yield gradient_row(key, model, golden.grad_norms[key])
        if key == "all/sigmoid_ce/polygon":
            yield from whole_gradients(model, golden)


def whole_gradients(model: RCNN, golden: EvaGolden) -> Iterator[Row]:
    """The gradients that were recorded entry by entry."""
    prefix = "grad_all_sigmoid_polygon/"
    for key in golden.train:
        if key.startswith(prefix):
            gradient: Tensor | None = model.get_parameter(key.removeprefix(prefix)).grad
            assert gradient is not None, key
            yield compare(key, gradient, golden.train[key])


def all_rows(golden: EvaGolden) -> Iterator[Row]:
    """Everything that was recorded behind the backbone."""
    yield from proposal_rows(golden)
    yield from stage_rows(golden)
    for setting in INFERENCE:
        yield from detection_rows(golden, setting)
    yield from loss_rows(golden, golden.meta["train_losses"])


def main(report: Callable[[str], None] = print) -> None:
    """Print one line per tensor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("golden", type=Path, help="folder that holds eva_tiny")
    for row in all_rows(EvaGolden(parser.parse_args().golden / "eva_tiny")):
        report(f"{row.name:76s} {row.absolute:10.2e} {row.relative:10.2e}")


if __name__ == "__main__":
    main()
