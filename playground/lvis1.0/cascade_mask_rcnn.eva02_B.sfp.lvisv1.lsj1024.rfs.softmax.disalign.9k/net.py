"""EVA-02-B under a simple pyramid, cascaded softmax heads, each calibrated by DisAlign."""

from functools import partial

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import CascadeBoxBranch, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    counts = class_counts(cfg.data, cfg.folder)
    net = eva02(
        "B",
        image_side=cfg.data.lsj_side,
        window=16,
        global_blocks=(2, 5, 8, 11),
        drop_path=0.1,
    )
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=len(counts),
        backbone=SimplePyramid(net),
        box=CascadeBoxBranch(
            classifier=partial(LinearClassifier, cfg.model.box_features, len(counts)),
            calibration=DisAlign,
            loss=partial(GroupReweightedCrossEntropy, counts),
        ),
    )
