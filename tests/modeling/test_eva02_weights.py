"""Weights of every origin reach an EVA-02 detector, and the load report says what happened to each."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file
from shared import shared
from torch import nn

from cvpods_ext.config.detection import Detector
from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.backbones.vit import mae_vit, resize_positions
from cvpods_ext.modeling.detection.build import cascade_mask_rcnn_fpn, cascade_rcnn_fpn
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.weights import load_into, read

SMALL = Detector(
    box_convs=(8,), box_fc=(8,), class_agnostic_boxes=True, mask_width=8, mask_convs=1, head_norm="LN", rpn_convs=2
)


def detector(num_classes=5, image_side=64, window=2, build=cascade_mask_rcnn_fpn, sub_norm=True):
    net = eva02_of(Size(16, 2, 2, sub_norm), image_side=image_side, window=window, global_blocks=(1,))
    return build(SMALL, num_classes=num_classes, backbone=SimplePyramid(net, 8))


def randomised(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def pretraining_file(patch=16, grid=14):
    """Named as files of masked image modelling are: bare blocks, tokens, a last norm, one rotary table."""
    net = randomised(eva02_of(Size(16, 2, 2), image_side=64, window=2, global_blocks=(1,)))
    state = {name: value for name, value in net.state_dict().items() if "rope" not in name}
    state["patch_embed.proj.weight"] = torch.randn(16, 3, patch, patch)
    state["pos_embed"] = torch.randn(1, 1 + grid**2, 16)
    outside = ["cls_token", "mask_token", "norm.weight", "norm.bias", "rope.freqs_cos", "lm_head.weight"]
    return state | {name: torch.randn(16) for name in outside}


def test_a_pretraining_file_fills_the_backbone_and_nothing_else():
    model, state = detector(), pretraining_file()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_into(model, state, "mim.pt")
    trunk = {name for name, _ in model.named_parameters() if name.startswith("backbone.net.")}
    assert set(report.loaded) == trunk
    assert not report.unexpected
    assert not report.skipped
    for name in trunk:
        assert torch.equal(model.state_dict()[name], state[name.removeprefix("backbone.net.")])
    for name in before.keys() - trunk:
        assert torch.equal(model.state_dict()[name], before[name]), name


def test_patches_of_14_pixels_are_resampled_to_16():
    model, state = detector(), pretraining_file(patch=14, grid=16)
    report = load_into(model, state, "mim.pt")
    assert set(report.reshaped) == {"backbone.net.patch_embed.proj.weight", "backbone.net.pos_embed"}
    resized = resize_positions(state["pos_embed"], (14, 14)).flatten(1, 2)
    torch.testing.assert_close(model.backbone.net.pos_embed[:, 1:], resized)


@torch.no_grad()
def test_timm_files_with_fused_layers_give_the_same_features():
    theirs = timm.create_model("eva02_tiny_patch14_224", class_token=False, num_classes=0, depth=2).eval()
    torch.manual_seed(0)
    for name, parameter in theirs.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.05)
    ours = eva02_of(
        Size(192, 2, 3, sub_norm=False), image_side=224, window=16, global_blocks=(0, 1), patch=14, pretrained_grid=16
    ).eval()
    state = dict(theirs.state_dict())
    state["pos_embed"] = torch.cat((torch.zeros(1, 1, 192), state["pos_embed"]), dim=1)
    report = load_into(ours, state, "timm")
    assert not report.missing
    assert not report.skipped
    images = torch.randn(1, 3, 224, 224)
    expected = theirs.forward_intermediates(images, indices=1, norm=False, intermediates_only=True)[-1]
    torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)


def test_a_file_of_masked_autoencoding_fills_its_transformer_but_for_the_relative_positions():
    ours = mae_vit(32, 2, 2, image_side=64, window=2, global_blocks=(1,))
    state = {name: torch.randn_like(value) for name, value in ours.state_dict().items() if "rel_pos" not in name}
    outside = {"cls_token": torch.zeros(1, 1, 32), "norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"net": ours})})
    report = load_into(model, {**outside, **state}, "mae_pretrain_vit_base.pth")
    assert {name.rpartition(".")[2] for name in report.missing} == {"rel_pos_h", "rel_pos_w"}
    assert not report.unexpected
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in state.items())


def test_a_larger_input_keeps_every_weight_and_its_own_rotary_tables():
    small, large = randomised(detector()), detector(image_side=96, window=3)
    tables = {name: value.clone() for name, value in large.named_buffers() if "rope" in name}
    report = load_into(large, small.state_dict(), "1024.pth")
    assert report.is_complete
    assert set(report.recomputed) == {name for name in large.state_dict() if "rope" in name}
    assert "of another input size, computed for this model (8):" in report.summary()
    for name, parameter in large.named_parameters():
        assert torch.equal(parameter, small.get_parameter(name))
    for name, value in tables.items():
        assert torch.equal(large.get_buffer(name), value)


def test_objects365_to_lvis_keeps_everything_but_the_classifiers():
    boxes_only = randomised(detector(num_classes=3, build=cascade_rcnn_fpn))
    model = detector(num_classes=7)
    report = load_into(model, boxes_only.state_dict(), "o365.pth")
    assert all(".mask_head." in name for name in report.missing)
    classifiers = {f"roi_heads.box_predictor.{k}.cls_score.{kind}" for k in range(3) for kind in ("weight", "bias")}
    assert {mismatch.name for mismatch in report.skipped} == classifiers
    kept = {name for name, _ in boxes_only.named_parameters()} - classifiers
    assert all(torch.equal(model.get_parameter(name), boxes_only.get_parameter(name)) for name in kept)


def test_the_average_of_a_file_loads_in_full(tmp_path):
    model = detector()
    average = WeightAverage(randomised(detector()), decay=0.9)
    torch.save({"model": model.state_dict(), "ema_state": average.tensors, "iteration": 3}, tmp_path / "final.pth")
    fresh = detector()
    report = load_into(fresh, read(tmp_path / "final.pth").ema, "final.pth")
    assert not report.missing
    assert not report.unexpected
    assert not report.skipped
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, average.tensors[name])


@pytest.mark.parametrize("num_classes", [20, 5])
def test_the_reference_detector_file_loads(num_classes):
    net = eva02_of(Size(96, 4, 3), image_side=128, window=4, global_blocks=(1, 3))
    settings = replace(SMALL, box_convs=(32,) * 4, box_fc=(64,), mask_width=32, mask_convs=4)
    model = cascade_mask_rcnn_fpn(settings, num_classes=num_classes, backbone=SimplePyramid(net, 32))
    report = load_into(model, load_file(shared("golden/eva_tiny/weights.safetensors")), "eva")
    per_class = (3 * 2 + 2) if num_classes != 20 else 0
    assert len(report.skipped) == per_class
    assert not report.missing
