"""DisAlign around the cosine classifier; only it is trained (see config.py)."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.necks.fpn import resnet_fpn


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(101, groups=32, width_per_group=8, stride_in_1x1=False),
        box=BoxBranch(
            classifier=DisAlign(CosineClassifier(cfg.model.box_features, classes)),
            loss=GroupReweightedCrossEntropy(class_counts(cfg.data, cfg.folder), exponent=0.8),
        ),
    )
