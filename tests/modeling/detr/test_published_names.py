"""State-dict names and shapes of the published DINO-EVA models, built on the meta device."""

import gzip
import json

import pytest
import torch
from dino_parity import DinoGolden
from safetensors.torch import load_file
from shared import shared

from cvpods_ext.config.detection import QueryDetector
from cvpods_ext.modeling.backbones.eva01 import eva01
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.backbones.resnet import resnet
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.reader import read

EVERY_THIRD = tuple(range(2, 24, 3))
EVA02 = {
    "b_4attn_1024_lrd0p7": dict(size="B", image_side=1024, global_blocks=(2, 5, 8, 11)),
    "b_6attn_win32_1536_lrd0p7": dict(size="B", image_side=1536, window=32, global_blocks=(1, 3, 5, 7, 9, 11)),
    "l_4attn_1024_lrd0p8": dict(size="L", image_side=1024, global_blocks=(5, 11, 17, 23)),
    "l_4attn_1280_lrd0p8": dict(size="L", image_side=1280, global_blocks=(5, 11, 17, 23)),
}


def build(backbone, num_classes=80):
    return dino(QueryDetector(), num_classes=num_classes, backbone=backbone)


@pytest.mark.parametrize("name", EVA02)
def test_names_and_shapes_are_those_of_the_published_file(name):
    path = shared(f"golden/manifests_dino/dino_eva_02_vitdet_{name}_4scale_12ep.json.gz")
    manifest = json.loads(gzip.decompress(path.read_bytes()))
    with torch.device("meta"):
        model = build(SimplePyramid(eva02(**EVA02[name]), finest=3))
    expected = {key: tuple(shape) for key, shape in manifest["state_dict"].items()}
    expected |= {alias: expected[key] for alias, key in manifest["aliases"].items()}
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected
    assert len(expected) == manifest["num_keys_with_aliases"]
    assert {key for key, _ in model.named_parameters()} == set(manifest["parameters"])
    assert sum(p.numel() for p in model.parameters()) == manifest["num_params"]


def parameters(model):
    return sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_large_model_at_1536_has_the_published_size():
    with torch.device("meta"):
        model = build(SimplePyramid(eva02("L", image_side=1536, global_blocks=EVERY_THIRD), finest=3))
    assert parameters(model) == (326_735_628, 326_735_628)
    assert len(model.state_dict()) == 900


def test_eva01_has_the_published_size_and_a_fixed_patch_embedding():
    with torch.device("meta"):
        model = build(SimplePyramid(eva01(), finest=3))
    assert parameters(model) == (1_037_215_116, 1_036_132_364)
    assert len(model.state_dict()) == 992


@pytest.mark.parametrize(("num_classes", "expected"), [(80, 18_821_452), (1203, 21_129_217)])
def test_what_is_neither_backbone_nor_extra_level_has_the_published_size(num_classes, expected):
    with torch.device("meta"):
        model = build(SimplePyramid(eva02("B", global_blocks=(2, 5, 8, 11)), finest=3), num_classes)
    assert sum(p.numel() for name, p in model.named_parameters() if not name.startswith("backbone")) == expected


def test_a_resnet_has_one_level_behind_its_last():
    with torch.device("meta"):
        model = build(resnet(50, stride_in_1x1=False, freeze_at=1))
    names = [name for name in model.state_dict() if name.startswith("neck.")]
    assert "neck.extra_convs.0.conv.weight" in names
    assert tuple(model.neck.extra_convs[0].conv.weight.shape) == (256, 2048, 3, 3)
    assert len(names) == 4 * 4


def test_a_file_in_published_names_loads_with_nothing_missing_or_left_over():
    folder = shared("golden/dino_tiny")
    model = DinoGolden(folder).model()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    report = load_into(model, read(folder / "weights.safetensors"), source="weights.safetensors")
    assert report.is_complete, report.summary()
    assert not report.reshaped
    recorded = load_file(folder / "weights.safetensors")
    assert all(torch.equal(value, recorded[name].float()) for name, value in model.state_dict().items())
