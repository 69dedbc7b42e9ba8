"""A narrow Mask R-CNN: one softmax per group of classes with like counts; only it is trained."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import instance_counts
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn
from cvpods_ext.modeling.detection.presets_small import BOX_FEATURES, SMALL, narrow_resnet_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.bags import BalancedGroupSoftmax


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    loss = BalancedGroupSoftmax(instance_counts(cfg.data, cfg.folder), edges=(5, 30, 200))
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=narrow_resnet_fpn(),
        classifier=LinearClassifier(BOX_FEATURES, classes, extra_logits=loss.extra_logits),
        classification_loss=loss,
        recipe=SMALL,
    )
