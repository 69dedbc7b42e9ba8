"""A narrow Mask R-CNN: logits shifted by counts and by where boxes lie."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import box_centres, image_counts, num_images
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.necks.fpn import narrow_resnet_fpn
from cvpods_ext.modeling.posthoc import LogitShift, fracal, fractal_dimensions


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    dimensions = fractal_dimensions(*box_centres(cfg.data, cfg.folder), classes)
    shift = fracal(image_counts(cfg.data, cfg.folder), num_images(cfg.data, cfg.folder), dimensions)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=narrow_resnet_fpn(),
        box=BoxBranch(classifier=LogitShift(LinearClassifier(cfg.model.box_features, classes), shift)),
    )
