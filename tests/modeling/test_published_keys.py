"""State dicts carry the names and shapes of the published DisAlign folders."""

import pytest
import torch
from shared import shared

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.necks.fpn import resnet_fpn

FOLDERS = (
    "mask_rcnn.res50.fpn.lvis.multiscale.1x",
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.1x",
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.disalign.1x",
    "mask_rcnn.res50.fpn.lvis.multiscale.disalign.1x",
    "mask_rcnn.res50.fpn.lvis.multiscale.rfs.1x",
    "mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.1x",
    "mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.disalign.1x",
    "mask_rcnn.res50.fpn.lvisv1.multiscale.1x",
    "mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.1x",
)


def build(folder):
    num_classes = 1203 if "lvisv1" in folder else 1230
    with torch.device("meta"):
        classifier = (CosineClassifier if "cos_norm" in folder else LinearClassifier)(1024, num_classes)
        box = BoxBranch(classifier=classifier)
        if "disalign" in folder:
            loss = GroupReweightedCrossEntropy(torch.ones(num_classes))
            box = BoxBranch(classifier=DisAlign(classifier), loss=loss)
        return mask_rcnn_fpn(Detector(), num_classes=num_classes, backbone=resnet_fpn(50), box=box)


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_and_shapes_equal_the_published_list(folder):
    lines = shared(f"golden/cvpods_keys/{folder}.txt").read_text().splitlines()
    published = {line.split("\t")[0]: line.split("\t")[1] for line in lines if line and not line.startswith("#")}
    ours = {key: str(tuple(value.shape)) for key, value in build(folder).state_dict().items()}
    assert ours == published
    assert len(ours) == (316 if "disalign" in folder else 312)


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if "disalign" not in folder])
def test_what_trains_equals_the_published_list(folder):
    lines = shared(f"golden/cvpods_keys/{folder}.txt").read_text().splitlines()
    published = {line.split("\t")[0] for line in lines if line.endswith("\ttrain")}
    assert {name for name, p in build(folder).named_parameters() if p.requires_grad} == published


@pytest.mark.parametrize(
    ("folder", "total"),
    [
        ("mask_rcnn.res50.fpn.lvis.multiscale.1x", 50_532_516),
        ("mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.1x", 50_531_286),
        ("mask_rcnn.res50.fpn.lvisv1.multiscale.1x", 50_387_202),
        ("mask_rcnn.res50.fpn.lvis.multiscale.disalign.1x", 50_536_001),
        ("mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.disalign.1x", 50_534_771),
    ],
)
def test_parameter_totals_equal_the_published_ones(folder, total):
    assert sum(parameter.numel() for parameter in build(folder).parameters()) == total
