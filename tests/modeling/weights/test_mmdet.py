"""Detectors of mmdetection: written under its names they give the outputs of the same weights under ours."""

import re
from pathlib import Path

import pytest
import torch

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.override import override
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.detection.build import cascade_rcnn_fpn, mask_rcnn_fpn
from cvpods_ext.modeling.necks.fpn import resnet_fpn
from cvpods_ext.modeling.weights.keys import family
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.structures import Batch, Targets

PLAYGROUND = Path(__file__).resolve().parents[3] / "playground" / "mini"
# Ours -> mmdetection's, written by hand from the module trees of its models.
BY_HAND = (
    (r"backbone\.bottom_up\.stem\.conv1\.weight", r"backbone.conv1.weight"),
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", r"backbone.bn1.\1"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.weight", r"backbone.layer<\1>.\2.conv\3.weight"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.norm\.(\w+)", r"backbone.layer<\1>.\2.bn\3.\4"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.weight", r"backbone.layer<\1>.\2.downsample.0.weight"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.norm\.(\w+)", r"backbone.layer<\1>.\2.downsample.1.\3"),
    (r"backbone\.fpn_lateral(\d)\.(\w+)", r"neck.lateral_convs.<<\1>>.conv.\2"),
    (r"backbone\.fpn_output(\d)\.(\w+)", r"neck.fpn_convs.<<\1>>.conv.\2"),
    (r"proposal_generator\.rpn_head\.conv\.(\w+)", r"rpn_head.rpn_conv.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(\w+)", r"rpn_head.rpn_cls.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(\w+)", r"rpn_head.rpn_reg.\1"),
    (r"roi_heads\.box_head\.(\d\.)?fc(\d)\.(\w+)", r"roi_head.bbox_head.\1shared_fcs.<\2>.\3"),
    (r"roi_heads\.box_predictor\.(\d\.)?cls_score\.(\w+)", r"roi_head.bbox_head.\1fc_cls.\2"),
    (r"roi_heads\.box_predictor\.(\d\.)?bbox_pred\.(\w+)", r"roi_head.bbox_head.\1fc_reg.\2"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(\w+)", r"roi_head.mask_head.convs.<\1>.conv.\2"),
    (r"roi_heads\.mask_head\.deconv\.(\w+)", r"roi_head.mask_head.upsample.\1"),
    (r"roi_heads\.mask_head\.predictor\.(\w+)", r"roi_head.mask_head.conv_logits.\1"),
)


def their_name(name):
    for ours, theirs in BY_HAND:
        if found := re.fullmatch(ours, name):
            text = found.expand(theirs)
            text = re.sub(r"<<(\d)>>", lambda number: str(int(number[1]) - 2), text)
            return re.sub(r"<(\d)>", lambda number: str(int(number[1]) - 1), text)
    raise AssertionError(f"{name} has no name there")


def detector(build):
    """A ResNet-50 with few channels elsewhere, random but for its seed."""
    torch.manual_seed(0)
    config = load_experiment(PLAYGROUND / "mask_rcnn.narrow.fpn64.box.96.plain").config
    model = override(config, model=dict(box_fc=2, score_threshold=0.0)).model
    return build(model, num_classes=5, backbone=resnet_fpn(50, channels=64)).eval()


def state_of(model):
    torch.manual_seed(1)
    return {
        name: value * (20 if "bbox_pred" in name else 1) + 0.02 * value.abs() * torch.rand_like(value)
        for name, value in model.state_dict().items()
        if "cell_anchors" not in name  # computed, and in no file of theirs
    }


def batch():
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    empty = torch.zeros(0, dtype=torch.int64)
    return Batch([image], [Targets(torch.zeros(0, 4), empty, 1, (96, 128), (96, 128))])


@pytest.mark.parametrize("build", [mask_rcnn_fpn, cascade_rcnn_fpn], ids=lambda build: build.__name__)
def test_a_file_under_mmdets_names_gives_the_same_outputs(build):
    ours, loaded = detector(build), detector(build)
    state = state_of(ours)
    ours.load_state_dict(state, strict=False)
    theirs = {their_name(name): value.clone() for name, value in state.items()}
    for kind in ("weight", "bias"):  # its last stage divides by .033 and .067 where ours multiplies by 30 and 15
        name = f"roi_head.bbox_head.2.fc_reg.{kind}"
        if name in theirs:
            factors = 1 / torch.tensor([0.99, 0.99, 1.005, 1.005])
            theirs[name] = (
                theirs[name].unflatten(0, (-1, 4)) * factors.view(4, *[1] * (theirs[name].ndim - 1))
            ).flatten(0, 1)
    assert family(theirs) == "mmdet"
    report = load_into(loaded, theirs, source="theirs.pth")
    assert (report.missing, report.skipped, report.unexpected) == ([], [], [])
    assert "unless its config says style='caffe'" in report.summary()
    with torch.inference_mode():
        expected, found = ours.detect(batch())[0], loaded.detect(batch())[0]
    assert len(expected.scores) > 0
    assert torch.allclose(found.boxes, expected.boxes, atol=1e-3)
    assert torch.allclose(found.scores, expected.scores, atol=1e-5)
    assert torch.equal(found.labels, expected.labels)


def test_three_mask_heads_of_a_cascade_stay_in_the_file():
    model = detector(mask_rcnn_fpn)
    theirs = {their_name(name): value for name, value in state_of(model).items()}
    theirs = {name.replace("mask_head.", "mask_head.0."): value for name, value in theirs.items()}
    report = load_into(model, theirs, source="theirs.pth")
    assert any("mask_head" in name for name in report.missing)
    assert all("mask_head.0" in name for name in report.unexpected)
    assert report.unexpected


def test_mmdetection_one_is_named_and_refused():
    state = {"neck.lateral_convs.0.conv.weight": torch.ones(1), "backbone.layer1.0.conv1.weight": torch.ones(1)}
    with pytest.raises(WeightsError, match="mmdetection 1"):
        load_into(detector(mask_rcnn_fpn), {**state, "bbox_head.fc_cls.weight": torch.ones(1)}, source="old.pth")
