"""How far the R-CNN family is from recorded runs of the reference detector, tensor by tensor.

    python benchmarks/golden_parity.py ../shared/golden

Writes the largest absolute difference of every recorded tensor, also relative to the tensor's largest value, and its
tolerance to benchmarks/golden_parity.md. Exit status 1 if any tolerance is missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity import (
    EQUAL,
    LOSSES,
    SAMPLING,
    Golden,
    MakeLoss,
    Row,
    compare,
    in_index_order,
    loss_rows,
    mask_logits_row,
    pixel_row,
    proposal_rows,
    through_stages,
    write_table,
)

from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.detection.anchor_matching import pad_targets
from cvpods_ext.modeling.detection.build import BoxBranch, CascadeBoxBranch, cascade_mask_rcnn_fpn, mask_rcnn_fpn
from cvpods_ext.modeling.detection.postprocess import finish
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.detection.roi_sampling import RoIs
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.modeling.necks.fpn import FPN

FOLDERS = ("d2_tiny_mask_rcnn", "d2_tiny_cascade_mask_rcnn")
STAGES = (Stage(2, 32, 8), Stage(2, 64, 16), Stage(2, 128, 32), Stage(2, 160, 40))


class D2Golden(Golden):
    """A tiny ResNet under a pyramid with one box head or a cascade of three."""

    image_name = "image{}_uint8_bgr"
    num_classes = 12

    def model(
        self,
        sampling: str = "all",
        loss: MakeLoss = SoftmaxCrossEntropy,
        *,
        stride_in_1x1: bool = True,
        **changes: Any,
    ) -> RCNN:
        """The tiny detector; `changes` are fields of the config's model section."""
        settings = self.settings(
            sampling, **dict(pixel_std=(57.375, 57.12, 58.395), score_threshold=0.05, box_fc=(64, 64)) | changes
        )
        common: dict[str, Any] = dict(
            num_classes=self.num_classes,
            backbone=FPN(ResNet(STAGES, stem_channels=16, stride_in_1x1=stride_in_1x1), 32),
            priorities=in_index_order,
        )
        if self.cascade:
            model = cascade_mask_rcnn_fpn(settings, box=CascadeBoxBranch(loss=loss), **common)
        else:
            model = mask_rcnn_fpn(settings, box=BoxBranch(loss=loss()), **common)
        missing, unexpected = model.load_state_dict(self.weights(), strict=False)
        assert all("cell_anchors" in key for key in missing), missing
        assert all(key.endswith("fed_loss_cls_weights") for key in unexpected), unexpected
        return model


@torch.no_grad()
def feature_rows(golden: D2Golden) -> Iterator[Row]:
    """Normalised input, ResNet stages, pyramid; also with the stride in the 3x3 convolution."""
    model, batch = golden.model().eval(), golden.batch()
    images, _ = model.preprocess(batch.images)
    yield compare("preprocessed", images, golden.inference["preprocessed"])
    stages = model.backbone.get_submodule("bottom_up")
    for i, map_ in enumerate(stages(images) if "res2" in golden.inference else []):
        yield compare(f"res{i + 2}", map_, golden.inference[f"res{i + 2}"])
    for i, map_ in enumerate(model.backbone(images)):
        yield compare(f"p{i + 2}", map_, golden.inference[f"p{i + 2}"])
    if "stride_in_3x3_p2" in golden.inference:
        for i, map_ in enumerate(golden.model(stride_in_1x1=False).backbone(images)):
            yield compare(f"stride_in_3x3_p{i + 2}", map_, golden.inference[f"stride_in_3x3_p{i + 2}"])


@torch.no_grad()
def head_rows(golden: D2Golden) -> Iterator[Row]:
    """Proposals, and per stage class logits and box deltas."""
    model, batch = golden.model().eval(), golden.batch()
    images, image_sizes = model.preprocess(batch.images)
    features, recorded = model.backbone(images), golden.inference
    yield from proposal_rows(model, features, image_sizes, recorded)
    for k, stage, _, pooled, logits in through_stages(model, features, image_sizes):
        yield compare(f"stage{k}_class_logits", logits, recorded[f"stage{k}_class_logits"])
        yield compare(f"stage{k}_deltas", stage.predictor.bbox_pred(pooled), recorded[f"stage{k}_deltas"])


@torch.no_grad()
def detection_rows(golden: D2Golden, setting: str) -> Iterator[Row]:
    """Final instances before and after the move to the original picture; `setting` is softmax or sigmoid."""
    loss = SoftmaxCrossEntropy if setting == "softmax" else SigmoidCrossEntropy
    model, batch = golden.model(loss=loss).eval(), golden.batch()
    images, image_sizes = model.preprocess(batch.images)
    features, recorded = model.backbone(images), golden.inference
    proposals, _ = model.proposal_generator(features, image_sizes)
    found = model.roi_heads.detect(features, proposals, image_sizes)
    if setting == "softmax":
        record = recorded["mask_logits_first3_instances_all_classes"]
        yield mask_logits_row(model.roi_heads.mask_head, features, found[0].boxes[:3], record, LOSSES)
    for i, raw in enumerate(found):
        name = f"{setting}_img{i}"
        yield compare(f"{name}_boxes", raw.boxes, recorded[f"{name}_boxes"], LOSSES)
        yield compare(f"{name}_scores", raw.scores, recorded[f"{name}_scores"], LOSSES)
        yield compare(f"{name}_classes", raw.labels, recorded[f"{name}_classes"])
        assert raw.mask_probabilities is not None
        masks = raw.mask_probabilities[:20, None]
        yield compare(f"{name}_maskprob", masks, recorded[f"{name}_maskprob_first20"], LOSSES)
        final, name = finish(raw, batch.targets[i]), f"{setting}_post_img{i}"
        yield compare(f"{name}_boxes", final.boxes, recorded[f"{name}_boxes"], LOSSES)
        yield compare(f"{name}_classes", final.labels, recorded[f"{name}_classes"])
        yield pixel_row(f"{name}_masks", raw, batch.targets[i], recorded[f"{name}_masks_packed"])


@torch.no_grad()
def sampling_rows(golden: D2Golden) -> Iterator[Row]:
    """Anchor labels, training proposals and the RoIs that enter the heads."""
    for sampling in SAMPLING:
        model, batch = golden.model(sampling).train(), golden.batch()
        images, image_sizes = model.preprocess(batch.images)
        features, truth = model.backbone(images), pad_targets(batch.targets)
        rpn = model.proposal_generator
        proposals, _ = rpn(features, image_sizes)
        anchors = torch.cat(rpn.anchor_generator(features))
        _, drawn = rpn.sampler(anchors, truth)
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


def roi_rows(golden: D2Golden, sampling: str, image: int, rois: RoIs) -> Iterator[Row]:
    """Boxes and labels as sets sorted by coordinates, since foreground and background interleave in the record."""
    mine = rois.image == image
    name = f"{sampling}_roi_%s_img{image}"
    theirs = {key: golden.train[name % key] for key in ("boxes", "gt_classes", "gt_boxes")}
    order = np.lexsort(np.round(theirs["boxes"], 3).T)
    ours = np.lexsort(np.round(rois.boxes[mine].numpy(), 3).T)
    yield compare(name % "boxes", rois.boxes[mine][ours], theirs["boxes"][order])
    yield compare(name % "gt_classes", rois.labels[mine][ours], theirs["gt_classes"][order])
    foreground = theirs["gt_classes"][order] < golden.num_classes
    matched = rois.truth_boxes[mine][ours][foreground]
    yield compare(name % "gt_boxes", matched, theirs["gt_boxes"][order][foreground], EQUAL)


def all_rows(golden: D2Golden) -> Iterator[Row]:
    """Everything that was recorded for one network."""
    for part in (feature_rows, head_rows, sampling_rows, loss_rows):
        yield from part(golden)
    for setting in ("softmax", "sigmoid"):
        yield from detection_rows(golden, setting)


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("golden", type=Path, help=f"folder that holds {' and '.join(FOLDERS)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    parts = {name: list(all_rows(D2Golden(options.golden / name))) for name in FOLDERS}
    command = "python benchmarks/golden_parity.py ../shared/golden"
    return write_table(options.out, command, parts)


if __name__ == "__main__":
    raise SystemExit(main())
