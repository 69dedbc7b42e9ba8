"""Mask R-CNN on a ResNet-50 pyramid: a softmax that knows the class counts in training."""

from cvpods_ext.config import Config
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.assemble import mask_rcnn_fpn, resnet_fpn
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSoftmax
from cvpods_ext.modeling.rcnn import RCNN


def build_model(cfg: Config) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        classification_loss=BalancedSoftmax(image_counts(cfg.data, cfg.folder)),
    )
