"""DisAlign around the cosine classifier of every stage; only it is trained (see config.py)."""

from functools import partial

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.calibration import DisAlign, calibrated
from cvpods_ext.modeling.classifiers import CosineClassifier
from cvpods_ext.modeling.detection.build import Recipe, cascade_mask_rcnn_fpn, resnet_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    counts = class_counts(cfg.data, cfg.folder)
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        classifier=partial(calibrated, DisAlign, partial(CosineClassifier, 1024, classes)),
        classification_loss=partial(GroupReweightedCrossEntropy, counts, exponent=0.8),
        recipe=Recipe(proposals=(2000, 1000)),
    )
