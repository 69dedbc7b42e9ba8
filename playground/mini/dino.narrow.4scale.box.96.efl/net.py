"""A narrow ResNet, DINO with the equalized focal loss."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.backbones.resnet import narrow_resnet
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.equalized import EqualizedFocal
from cvpods_ext.modeling.detr.model import DINO


def build_model(cfg: DetectionConfig) -> DINO:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return dino(
        cfg.model,
        num_classes=classes,
        backbone=narrow_resnet(),
        classification_loss=EqualizedFocal(classes),
    )
