"""Every level of the simple pyramid by its formula; the recorded outputs of the reference are in test_eva02.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cvpods_ext.modeling.backbones.vit import ViT
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


@pytest.fixture
def pyramid():
    torch.manual_seed(0)
    model = SimplePyramid(ViT(8, [], image_side=96, pretrained_grid=6), channels=4)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def normalised(x, norm):
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def ended(x, first, second):
    x = normalised(F.conv2d(x, first.weight), first.norm)
    return normalised(F.conv2d(x, second.weight, padding=1), second.norm)


@torch.no_grad()
def test_levels_by_formula(pyramid):
    images = torch.randn(2, 3, 96, 96)
    map_ = pyramid.net(images)
    up, norm, _, again, *end2 = pyramid.simfp_2
    x = F.gelu(normalised(F.conv_transpose2d(map_, up.weight, up.bias, stride=2), norm))
    p2 = ended(F.conv_transpose2d(x, again.weight, again.bias, stride=2), *end2)
    up, *end3 = pyramid.simfp_3
    p3 = ended(F.conv_transpose2d(map_, up.weight, up.bias, stride=2), *end3)
    p4 = ended(map_, *pyramid.simfp_4)
    p5 = ended(F.max_pool2d(map_, 2), *pyramid.simfp_5[1:])
    for ours, expected in zip(pyramid(images), (p2, p3, p4, p5, p5[:, :, ::2, ::2]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_strides_describe_the_maps(pyramid):
    assert [96 / map_.shape[2] for map_ in pyramid(torch.zeros(1, 3, 96, 96))][:4] == list(pyramid.strides[:4])
    assert pyramid(torch.zeros(1, 3, 96, 96))[4].shape[2:] == (2, 2)  # 3 rounded up
    assert pyramid.padded_size(96, 17) == (96, 96)
