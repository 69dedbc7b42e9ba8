"""How far EVA-02's detector is from recorded runs of its authors' code, tensor by tensor.

    python benchmarks/eva02_parity.py ../shared/golden

Writes the largest absolute difference of every recorded tensor, also relative to the tensor's largest value, and its
tolerance to benchmarks/eva02_parity.md. Exit status 1 if any tolerance is missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eva02_parity_parts import backbone_rows, operator_rows, rate_rows
from parity import (
    EQUAL,
    Golden,
    MakeLoss,
    Row,
    compare,
    impossible,
    in_index_order,
    loss_rows,
    mask_logits_row,
    pixel_row,
    proposal_rows,
    through_stages,
    write_table,
)

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.detection.build import CascadeBoxBranch, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.postprocess import RawDetections, finish
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.weights import load_into

RGB = dict(pixel_mean=(123.675, 116.28, 103.53), pixel_std=(58.395, 57.12, 57.375))
STAGES = 5e-5  # deeper than an R-CNN: three stages of convolutions and norms
GRADIENTS = 5e-3
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
    num_classes = 20

    def model(self, sampling: str = "all", loss: MakeLoss = SigmoidCrossEntropy, **changes: Any) -> RCNN:
        """The tiny detector; `changes` are fields of the config's model section."""
        ours: dict[str, Any] = RGB | dict(
            float32_heads=True,
            rpn_convs=2,
            box_convs=(32,) * 4,
            box_fc=(64,),
            class_agnostic_boxes=True,
            head_norm="LN",
            score_threshold=0.15,
        )
        settings = self.settings(sampling, **ours | changes)
        net = eva02_of(Size(96, 4, 3), image_side=128, window=4, global_blocks=(1, 3))
        model = cascade_mask_rcnn_fpn(
            settings,
            num_classes=self.num_classes,
            backbone=SimplePyramid(net, 32),
            box=CascadeBoxBranch(loss=loss),
            priorities=in_index_order,
        )
        report = load_into(model, self.weights(), "weights.safetensors")
        assert not report.missing
        assert not report.skipped
        assert all(name.endswith("fed_loss_cls_weights") for name in report.unexpected), report.unexpected
        return model


@torch.no_grad()
def rpn_rows(golden: EvaGolden) -> Iterator[Row]:
    """Normalised input, raw RPN maps, anchors and proposals."""
    model, batch = golden.model().eval(), golden.batch()
    images, image_sizes = model.preprocess(batch.images)
    yield compare("preprocessed", images, np.load(golden.folder / "backbone.npz")["preprocessed"])
    features = model.backbone(images)
    head, recorded = model.proposal_generator.rpn_head, golden.inference
    for level, map_ in enumerate(features, start=2):
        hidden = head.conv(map_)
        yield compare(f"rpn_objectness_p{level}", head.objectness_logits(hidden), recorded[f"rpn_objectness_p{level}"])
        yield compare(f"rpn_deltas_p{level}", head.anchor_deltas(hidden), recorded[f"rpn_deltas_p{level}"])
    anchors = model.proposal_generator.anchor_generator(features)
    for level in (4, 6):
        yield compare(f"anchors_p{level}", anchors[level - 2], recorded[f"anchors_p{level}"], EQUAL)
    yield from proposal_rows(model, features, image_sizes, recorded)


@torch.no_grad()
def stage_rows(golden: EvaGolden) -> Iterator[Row]:
    """Boxes entering every stage, its logits and deltas, the averaged scores, and mask logits of all classes."""
    model, batch = golden.model().eval(), golden.batch()
    images, image_sizes = model.preprocess(batch.images)
    features, recorded, scores = model.backbone(images), golden.inference, []
    for k, stage, boxes, pooled, logits in through_stages(model, features, image_sizes):
        for i, of_image in enumerate(boxes.split(len(boxes) // 2)):
            yield compare(f"stage{k}_in_boxes{i}", of_image, recorded[f"stage{k}_in_boxes{i}"], STAGES)
        scores.append(logits.sigmoid())
        yield compare(f"stage{k}_class_logits", logits, recorded[f"stage{k}_class_logits"], STAGES)
        deltas = stage.predictor.bbox_pred(pooled)
        yield compare(f"stage{k}_deltas", deltas, recorded[f"stage{k}_deltas"], STAGES)
    yield compare("avg_scores_sigmoid", torch.stack(scores).mean(dim=0), recorded["avg_scores_sigmoid"], STAGES)
    first = torch.from_numpy(recorded["nms_img0_boxes"][:3])
    record = recorded["mask_logits_first3_instances_all_classes"]
    yield mask_logits_row(model.roi_heads.mask_head, features, first, record, STAGES)


@torch.no_grad()
def detection_rows(golden: EvaGolden, setting: str) -> Iterator[Row]:
    """Final instances of one recorded inference setting, in network pixels and in the original picture."""
    loss = SoftmaxCrossEntropy if setting.startswith("softmax") else SigmoidCrossEntropy
    model, batch = golden.model(loss=loss, **INFERENCE[setting]).eval(), golden.batch()
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
        yield impossible(f"{name}: {len(raw.labels)} instances instead of {len(classes)}")
        return
    # one mask pixel that crosses 0.5 moves a score by maskness
    tolerance = 1e-3 if "maskness" in name else 1e-4
    distance = (raw.boxes[:, None] - boxes).abs().amax(dim=2)
    distance = distance.masked_fill(raw.labels[:, None] != classes, torch.inf)
    ours = distance.argmin(dim=0)
    unmatched = len(classes) - len(ours.unique())
    yield compare(f"{name}_unmatched", torch.tensor(float(unmatched)), 0.0, EQUAL)
    yield compare(f"{name}_boxes", raw.boxes[ours], recorded["boxes"], tolerance)
    yield compare(f"{name}_scores", raw.scores[ours], recorded["scores"], tolerance)
    yield compare(f"{name}_classes", raw.labels[ours], recorded["classes"])
    for key in recorded:
        if key.startswith("maskprob_first") and raw.mask_probabilities is not None:
            count = len(recorded[key])
            yield compare(f"{name}_maskprob", raw.mask_probabilities[ours[:count], None], recorded[key], tolerance)


def final_rows(golden: EvaGolden, name: str, raw: RawDetections, i: int) -> Iterator[Row]:
    """Boxes and pixels after the move to the original picture."""
    final = finish(raw, golden.batch().targets[i])
    recorded = golden.inference
    placed = RawDetections(final.boxes, final.scores, final.labels)
    fields = {key: recorded[f"{name}_{key}"] for key in ("boxes", "scores", "classes")}
    yield from matched_rows(name, placed, fields)
    if f"{name}_masks_packed" in recorded:
        yield pixel_row(f"{name}_masks", raw, golden.batch().targets[i], recorded[f"{name}_masks_packed"])


def all_rows(golden: EvaGolden) -> Iterator[Row]:
    """Everything that was recorded behind the backbone."""
    yield from rpn_rows(golden)
    yield from stage_rows(golden)
    for setting in INFERENCE:
        yield from detection_rows(golden, setting)
    yield from loss_rows(golden, gradients=GRADIENTS)


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("golden", type=Path, help="folder that holds eva_tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    golden = EvaGolden(options.golden / "eva_tiny")
    backbone, inside = golden.model().eval().backbone, np.load(golden.folder / "backbone.npz")
    assert isinstance(backbone, SimplePyramid)
    counts = image_counts(DetectionData(train="lvis_v1_train"), ".")
    parts = {
        "eva_tiny, backbone": list(backbone_rows(backbone, inside)),
        "eva_tiny, detector": list(all_rows(golden)),
        "ops/eva_ops": list(operator_rows(np.load(options.golden / "ops" / "eva_ops.npz"), counts)),
        "lr_decay": list(rate_rows(options.golden)),
    }
    return write_table(options.out, "python benchmarks/eva02_parity.py ../shared/golden", parts)


if __name__ == "__main__":
    raise SystemExit(main())
