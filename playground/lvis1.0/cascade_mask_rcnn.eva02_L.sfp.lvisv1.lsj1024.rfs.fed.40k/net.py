"""EVA-02-L under a simple pyramid, cascaded heads with the federated sigmoid loss."""

from functools import partial

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.classifiers import FederatedClassifier
from cvpods_ext.modeling.detection.build import CascadeBoxBranch, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    counts = image_counts(cfg.data, cfg.folder)
    net = eva02(
        "L",
        image_side=cfg.data.lsj_side,
        window=16,
        global_blocks=(5, 11, 17, 23),
        drop_path=0.4,
    )
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=len(counts),
        backbone=SimplePyramid(net),
        box=CascadeBoxBranch(
            classifier=partial(FederatedClassifier, cfg.model.box_features, counts),
            loss=partial(FederatedLoss, counts),
        ),
    )
