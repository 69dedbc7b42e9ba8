"""Mask R-CNN on a ResNet-50 pyramid: a softmax that knows the class counts in training."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn, resnet_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSoftmax


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        classification_loss=BalancedSoftmax(image_counts(cfg.data, cfg.folder)),
    )
