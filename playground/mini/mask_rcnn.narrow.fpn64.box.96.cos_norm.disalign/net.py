"""DisAlign around the cosine classifier of a narrow Mask R-CNN."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn
from cvpods_ext.modeling.detection.presets_small import BOX_FEATURES, SMALL, narrow_resnet_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=narrow_resnet_fpn(),
        classifier=DisAlign(CosineClassifier(BOX_FEATURES, classes)),
        classification_loss=GroupReweightedCrossEntropy(class_counts(cfg.data, cfg.folder), exponent=0.8),
        recipe=SMALL,
    )
