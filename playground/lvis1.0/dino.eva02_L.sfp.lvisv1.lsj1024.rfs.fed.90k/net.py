"""EVA-02-L under a simple pyramid, DINO with the federated focal loss."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.losses import FederatedFocal
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> DINO:
    """Build the detector that config.py trains."""
    counts = image_counts(cfg.data, cfg.folder)
    net = eva02(
        "L",
        image_side=cfg.data.lsj_side,
        window=16,
        global_blocks=(5, 11, 17, 23),
        drop_path=0.4,
    )
    return dino(
        cfg.model,
        num_classes=len(counts),
        backbone=SimplePyramid(net, finest=3),
        classification_loss=FederatedFocal(counts),
    )
