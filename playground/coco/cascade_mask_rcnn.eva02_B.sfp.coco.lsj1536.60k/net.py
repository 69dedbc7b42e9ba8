"""EVA-02-B under a simple pyramid, cascaded heads with softmax cross entropy."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.detection.build import cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    net = eva02(
        "B",
        image_side=cfg.data.lsj_side,
        window=32,
        global_blocks=(1, 3, 5, 7, 9, 11),
        drop_path=0.1,
    )
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=SimplePyramid(net),
    )
