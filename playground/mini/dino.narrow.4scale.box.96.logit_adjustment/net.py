"""A narrow ResNet, DINO with the focal loss and adjusted scores."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.backbones.resnet import narrow_resnet
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.equalized import AdjustedFocal
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.modeling.posthoc import logit_adjustment


def build_model(cfg: DetectionConfig) -> DINO:
    """Build the detector that config.py tests."""
    counts = image_counts(cfg.data, cfg.folder)
    return dino(
        cfg.model,
        num_classes=len(counts),
        backbone=narrow_resnet(),
        classification_loss=AdjustedFocal(logit_adjustment(counts)),
    )
