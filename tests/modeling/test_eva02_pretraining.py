"""The small masked image modelling of benchmarks/eva02_mini.py, and that its file starts the mini experiment."""

import eva02_mini
import pytest
import torch
from torch import nn

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.backbones.eva02 import eva02_of
from cvpods_ext.modeling.backbones.vit import resize_positions
from cvpods_ext.modeling.detection.build import cascade_mask_rcnn_fpn
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.weights import load_into, read


@pytest.fixture
def model():
    torch.manual_seed(0)
    return eva02_mini.MaskedImageModel()


def test_what_is_hidden_does_not_reach_the_prediction_of_another_patch(model):
    """The error of one hidden patch stays the same whatever another hidden patch shows."""
    side = eva02_mini.PATCH * eva02_mini.GRID
    images, hidden = torch.randn(1, 3, side, side), torch.zeros(1, eva02_mini.GRID, eva02_mini.GRID, dtype=torch.bool)
    hidden[0, 2, 3] = hidden[0, 5, 1] = True
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(images, hidden)
    other = images.clone()
    other[:, :, 5 * eva02_mini.PATCH : 6 * eva02_mini.PATCH, eva02_mini.PATCH : 2 * eva02_mini.PATCH] += 3.0
    model(other, hidden)
    assert torch.equal(seen[0], seen[1])
    other[:, :, : eva02_mini.PATCH] += 3.0  # shown patches do
    model(other, hidden)
    assert not torch.allclose(seen[0], seen[2])


def test_the_error_of_a_constant_prediction_is_the_variance_by_hand(model):
    nn.init.zeros_(model.lm_head.weight)
    nn.init.zeros_(model.lm_head.bias)
    side = eva02_mini.PATCH * eva02_mini.GRID
    loss = model(torch.randn(2, 3, side, side), torch.ones(2, eva02_mini.GRID, eva02_mini.GRID, dtype=torch.bool))
    assert loss.item() == pytest.approx(1.0, abs=1e-3)


def test_its_file_fills_the_backbone_with_resampled_patches_and_positions(model, tmp_path):
    eva02_mini.save(model, tmp_path / "pretrained.pth")
    net = eva02_of(eva02_mini.SIZE, image_side=128, window=4, global_blocks=(1, 3))
    settings = Detector(box_fc=(8,), class_agnostic_boxes=True, mask_width=8, mask_convs=1)
    detector = cascade_mask_rcnn_fpn(settings, num_classes=2, backbone=SimplePyramid(net, 8))
    report = load_into(detector, read(tmp_path / "pretrained.pth"), "pretrained.pth")
    assert set(report.loaded) == {name for name, _ in detector.named_parameters() if name.startswith("backbone.net.")}
    assert set(report.reshaped) == {"backbone.net.patch_embed.proj.weight", "backbone.net.pos_embed"}
    assert not report.unexpected
    assert not report.skipped
    grid = resize_positions(model.net.pos_embed, (14, 14)).flatten(1, 2)
    torch.testing.assert_close(net.pos_embed[:, 1:], grid)
