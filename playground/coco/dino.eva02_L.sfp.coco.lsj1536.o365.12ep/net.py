"""EVA-02-L under a simple pyramid, DINO with the focal loss."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> DINO:
    """Build the detector that config.py trains."""
    net = eva02(
        "L",
        image_side=cfg.data.lsj_side,
        window=16,
        global_blocks=(2, 5, 8, 11, 14, 17, 20, 23),
        drop_path=0.3,
        recompute=True,
    )
    return dino(cfg.model, num_classes=num_classes(cfg.data, cfg.folder), backbone=SimplePyramid(net, finest=3))
