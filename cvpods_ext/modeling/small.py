"""The sizes of version 0.1's small detector under their old names; now they are in `config.bases.MINI`."""

from cvpods_ext.modeling.assemble import Recipe
from cvpods_ext.modeling.necks.fpn import narrow_resnet_fpn

__all__ = ["BOX_FEATURES", "SMALL", "narrow_resnet_fpn"]

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
