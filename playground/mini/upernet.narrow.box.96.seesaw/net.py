"""A narrow UPerNet on a narrow ResNet: pairs of classes are balanced while it trains."""

from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.data.segmentation import num_classes
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.segmentation.build import upernet
from cvpods_ext.modeling.segmentation.losses import SeesawPixelCrossEntropy


def build_model(cfg: SegmentationConfig):
    """Build the segmentor that config.py trains."""
    loss = SeesawPixelCrossEntropy(num_classes(cfg.data, cfg.folder))
    stages = (Stage(1, 32, 32), Stage(1, 64, 64), Stage(1, 96, 96), Stage(1, 128, 128))
    backbone = ResNet(stages, stem_channels=16, bottleneck=False, norm="BN", freeze_at=0)
    return upernet(
        cfg,
        backbone=backbone,
        in_channels=(32, 64, 96, 128),
        num_classes=num_classes(cfg.data, cfg.folder),
        loss=loss,
    )
