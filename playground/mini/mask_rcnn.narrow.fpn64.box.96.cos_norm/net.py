"""A narrow Mask R-CNN with a cosine classifier."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.classifiers import CosineClassifier
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn
from cvpods_ext.modeling.detection.presets_small import BOX_FEATURES, SMALL, narrow_resnet_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=narrow_resnet_fpn(),
        classifier=CosineClassifier(BOX_FEATURES, classes),
        recipe=SMALL,
    )
