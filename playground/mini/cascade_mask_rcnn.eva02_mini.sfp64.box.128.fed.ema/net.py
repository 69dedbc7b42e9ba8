"""Four transformer blocks of width 96 under a 64-channel pyramid, cascaded heads with the federated sigmoid loss."""

from functools import partial

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.classifiers import FederatedClassifier
from cvpods_ext.modeling.detection.build import CascadeBoxBranch, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    counts = image_counts(cfg.data, cfg.folder)
    net = eva02_of(Size(96, 4, 3), image_side=cfg.data.lsj_side, window=4, global_blocks=(1, 3), drop_path=0.1)
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=len(counts),
        backbone=SimplePyramid(net, 64),
        box=CascadeBoxBranch(
            classifier=partial(FederatedClassifier, cfg.model.box_features, counts),
            loss=partial(FederatedLoss, counts, num_sampled=20),
        ),
    )
