"""Mask R-CNN on a ResNet-50 pyramid: logits standardised by their statistics over training proposals."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.necks.fpn import resnet_fpn
from cvpods_ext.modeling.posthoc import RunningLogN


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        box=BoxBranch(classifier=RunningLogN(LinearClassifier(cfg.model.box_features, classes), classes)),
    )
