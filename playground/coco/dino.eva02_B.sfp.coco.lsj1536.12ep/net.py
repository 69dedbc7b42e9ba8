"""EVA-02-B under a simple pyramid, DINO with the focal loss."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> DINO:
    """Build the detector that config.py trains."""
    net = eva02(
        "B",
        image_side=cfg.data.lsj_side,
        window=32,
        global_blocks=(1, 3, 5, 7, 9, 11),
        drop_path=0.1,
        recompute=True,
    )
    return dino(cfg.model, num_classes=num_classes(cfg.data, cfg.folder), backbone=SimplePyramid(net, finest=3))
