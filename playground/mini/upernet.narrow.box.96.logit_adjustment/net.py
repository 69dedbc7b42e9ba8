"""A narrow UPerNet on a narrow ResNet: a softmax that knows the pixel counts in training."""

import torch

from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.data.segmentation import num_classes
from cvpods_ext.data.segmentation_statistics import pixel_counts
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.segmentation.build import upernet
from cvpods_ext.modeling.segmentation.losses import LogitAdjustedPixelCrossEntropy


def build_model(cfg: SegmentationConfig):
    """Build the segmentor that config.py trains."""
    loss = LogitAdjustedPixelCrossEntropy(torch.from_numpy(pixel_counts(cfg.data, cfg.folder)))
    widths = (32, 64, 96, 128)
    backbone = ResNet(
        [Stage(1, width, width) for width in widths], stem_channels=16, bottleneck=False, norm="BN", freeze_at=0
    )
    return upernet(cfg, backbone=backbone, in_channels=widths, num_classes=num_classes(cfg.data, cfg.folder), loss=loss)
