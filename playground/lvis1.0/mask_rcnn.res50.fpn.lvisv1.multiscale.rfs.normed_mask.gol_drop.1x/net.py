"""Mask R-CNN on a ResNet-50 pyramid: Gumbel distributions that spare rare classes."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import image_counts, num_images
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.detection.mask_head import NormalizedMaskPredictor
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.gol import GumbelDropLoss, gumbel_classifier
from cvpods_ext.modeling.necks.fpn import resnet_fpn


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    classes = num_classes(cfg.data, cfg.folder)
    images = num_images(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=classes,
        backbone=resnet_fpn(50),
        box=BoxBranch(
            classifier=gumbel_classifier(cfg.model.box_features, classes),
            loss=GumbelDropLoss(image_counts(cfg.data, cfg.folder), images),
        ),
        mask_predictor=NormalizedMaskPredictor(cfg.model.mask_width, classes),
    )
