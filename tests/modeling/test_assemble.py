"""An experiment folder of version 0.1 gives the network that the same folder has now."""

import pytest
import torch

from cvpods_ext.config.experiment import load_experiment

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE
from cvpods_ext.config.schema import DatasetFiles

config = override(BASE, model=dict(init="none"))
"""
OLD = """
from cvpods_ext.config import Config
from cvpods_ext.modeling.assemble import mask_rcnn_fpn
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.rcnn import RCNN
from cvpods_ext.modeling.small import BOX_FEATURES, SMALL, narrow_resnet_fpn


def build_model(cfg: Config) -> RCNN:
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=3,
        backbone=narrow_resnet_fpn(),
        classifier=LinearClassifier(BOX_FEATURES, 3),
        recipe=SMALL,
    )
"""
NEW = """
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.necks.fpn import narrow_resnet_fpn


def build_model(cfg: DetectionConfig):
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=3,
        backbone=narrow_resnet_fpn(),
        box=BoxBranch(classifier=LinearClassifier(cfg.model.box_features, 3)),
    )
"""


def build(folder, net):
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG)
    (folder / "net.py").write_text(net)
    torch.manual_seed(0)
    return load_experiment(folder).build_model()


def test_an_old_folder_builds_the_same_weights_and_says_that_it_is_old(tmp_path):
    with pytest.warns(FutureWarning, match=r"version 0\.1"):
        old = build(tmp_path / "old", OLD)
    new = build(tmp_path / "new", NEW)
    assert old.state_dict().keys() == new.state_dict().keys()
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
    assert old.roi_heads.selection == new.roi_heads.selection
    assert repr(old) == repr(new)
