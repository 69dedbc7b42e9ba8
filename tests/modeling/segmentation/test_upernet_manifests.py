"""Names, shapes and counts of the three published networks, built without memory."""

import gzip
import json

import pytest
import torch
from shared import shared

from cvpods_ext.modeling.segmentation.backbone import eva02_multi_scale
from cvpods_ext.modeling.segmentation.heads import FCNHead, UPerHead
from cvpods_ext.modeling.segmentation.inference import TestScales
from cvpods_ext.modeling.segmentation.losses import PixelCrossEntropy
from cvpods_ext.modeling.segmentation.segmentor import Segmentor

# size, crop, width, channels of the decoder and of the auxiliary head, parameters by README of the authors' code
PUBLISHED = {
    "upernet_eva02_base_12_512_slide_60k": ("B", 512, 768, 768, 256, 163_339_052),
    "upernet_eva02_large_24_512_slide_80k": ("L", 512, 1024, 1024, 256, 439_988_460),
    "upernetpro_eva02_large_24_640_slide_80k": ("L", 640, 1024, 1536, 1536, 590_808_300),
}


def build(name):
    size, crop, width, channels, auxiliary, _ = PUBLISHED[name]
    with torch.device("meta"):
        return Segmentor(
            backbone=eva02_multi_scale(size, crop_side=crop, drop_path=0.1),
            decode_head=UPerHead([width] * 4, channels, 150),
            auxiliary_head=FCNHead(width, auxiliary, 150),
            loss=PixelCrossEntropy(),
            scales=TestScales(crop=crop),
            pixel_statistics=((0.0,) * 3, (1.0,) * 3),
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == PUBLISHED[name][-1]


@pytest.mark.parametrize("name", list(PUBLISHED)[:2])  # of the third no list of names was recorded
def test_names_and_shapes_are_those_of_the_published_file(name):
    with gzip.open(shared(f"golden/manifests_seg_cls/{name}.json.gz")) as file:
        recorded = json.load(file)
    ours = {key: list(value.shape) for key, value in build(name).state_dict().items()}
    theirs = recorded["params"] | recorded["buffers"]
    assert ours.keys() == theirs.keys()
    assert {key: shape for key, shape in ours.items() if shape != theirs[key]} == {}
    assert len(ours) == recorded["summary"]["n_keys"]
