"""A narrow ResNet on images of 48 pixels: a linear head."""

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.data.classification import num_classes
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.classification.backbone import MeanOfMap
from cvpods_ext.modeling.classification.build import image_classifier


def build_model(cfg: ClassificationConfig):
    """Build the classifier that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    bottom_up = ResNet(
        [Stage(1, 32, 16), Stage(1, 64, 32), Stage(1, 128, 64)], stem_channels=16, norm="BN", freeze_at=0
    )
    return image_classifier(cfg.model, backbone=MeanOfMap(bottom_up), width=128, num_classes=classes)
