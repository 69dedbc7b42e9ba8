"""Sizes for a Mask R-CNN that learns on a laptop: a narrow ResNet under a 64-channel pyramid, for images of 96 px.

Everything else is the published detector; only widths, anchors and the number of regions are smaller.
"""

from __future__ import annotations

from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.detection.build import Recipe
from cvpods_ext.modeling.necks.fpn import FPN

BOX_FEATURES = 256

SMALL = Recipe(
    anchor_sizes=(8, 16, 32, 64, 128),
    anchors_per_image=64,
    top_per_level=(200, 100),
    proposals=(100, 60),
    rois_per_image=48,
    box_fc=(BOX_FEATURES, BOX_FEATURES),
    mask_width=64,
    mask_convs=2,
)


def narrow_resnet_fpn() -> FPN:
    """Five basic blocks of 32 to 128 channels with trainable batch norm, from scratch, under a 64-channel pyramid."""
    stages = (Stage(1, 32, 32), Stage(1, 64, 64), Stage(2, 96, 96), Stage(1, 128, 128))
    return FPN(ResNet(stages, stem_channels=16, bottleneck=False, norm="BN", freeze_at=0), channels=64)
