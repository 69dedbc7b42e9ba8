"""Mask R-CNN on a ResNet-50 pyramid: margins by class counts, cosines for boxes and masks."""

from cvpods_ext.config import Config
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.assemble import mask_rcnn_fpn, resnet_fpn
from cvpods_ext.modeling.classifiers import CosineClassifier
from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss
from cvpods_ext.modeling.mask_head import NormalizedMaskPredictor
from cvpods_ext.modeling.rcnn import RCNN


def build_model(cfg: Config) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        classifier=CosineClassifier(1024, classes, learn_scale=False),
        classification_loss=EffectiveClassMarginLoss(image_counts(cfg.data, cfg.folder)),
        mask_predictor=NormalizedMaskPredictor(256, classes),
    )
