"""Mask R-CNN on a ResNet-50 pyramid: Gumbel distributions instead of sigmoids."""

from torch import nn

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn, resnet_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.gol import GumbelLoss


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    classifier = LinearClassifier(1024, classes)
    nn.init.constant_(classifier.bias, -2.0)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        classifier=classifier,
        classification_loss=GumbelLoss(),
    )
