"""Mask R-CNN on a ResNeXt-101 32x8d pyramid with a cosine classifier."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.classifiers import CosineClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.necks.fpn import resnet_fpn


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(101, groups=32, width_per_group=8, stride_in_1x1=False),
        box=BoxBranch(classifier=CosineClassifier(cfg.model.box_features, classes)),
    )
