"""DisAlign around the linear classifier of every stage; only it is trained (see config.py)."""

from functools import partial

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import CascadeBoxBranch, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.necks.fpn import resnet_fpn


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    counts = class_counts(cfg.data, cfg.folder)
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        box=CascadeBoxBranch(
            classifier=partial(LinearClassifier, cfg.model.box_features, classes),
            calibration=DisAlign,
            loss=partial(GroupReweightedCrossEntropy, counts, exponent=0.8),
        ),
    )
