"""EVA-02-B, UPerNet, ADE20K, crops of 512 px (the authors' `upernet_eva02_base_12_512_slide_60k`)."""

from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.data.segmentation import num_classes
from cvpods_ext.modeling.segmentation.backbone import eva02_multi_scale
from cvpods_ext.modeling.segmentation.build import upernet


def build_model(cfg: SegmentationConfig):
    """UPerNet on EVA-02; sizes are in config.py."""
    return upernet(
        cfg,
        backbone=eva02_multi_scale("B", crop_side=cfg.data.crop_side, drop_path=cfg.model.drop_path),
        in_channels=(768,) * 4,
        num_classes=num_classes(cfg.data, cfg.folder),
    )
