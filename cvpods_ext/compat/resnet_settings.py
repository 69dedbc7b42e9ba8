"""`MODEL.RESNETS` of an old config: what our ResNets have of it. Never imports torch."""

from __future__ import annotations

from typing import Any

from cvpods_ext.compat.configs import AttributeDict, flat
from cvpods_ext.compat.translation import FixedValues, refused_values

_WIDTHS = "the widths are those of the published ResNets"
_FIXED: FixedValues = {
    "MODEL.RESNETS.ACTIVATION.NAME": (("ReLU",), "the ResNets here have ReLUs"),
    "MODEL.RESNETS.NORM": (("", "FrozenBN", "BN", "GN"), "the ResNets here have no other norm"),
    "MODEL.RESNETS.RES5_DILATION": ((1,), "the ResNets here have no dilation"),
    "MODEL.RESNETS.STEM_OUT_CHANNELS": ((64,), _WIDTHS),
    "MODEL.RESNETS.DEEP_STEM": ((False,), "the stem is one 7x7 convolution"),
    "MODEL.RESNETS.RADIX": ((1,), "ResNeSt is not built here"),
}
_DEEP = 50  # from this depth on a stage ends in 256 channels and multiples, below in 64


def refused_resnet(config: AttributeDict) -> list[str]:
    """One line for each setting that our ResNets do not have; [] if there is none."""
    lines, settings = refused_values(config, _FIXED), config.MODEL.RESNETS
    if any(flat(config).get("MODEL.RESNETS.DEFORM_ON_PER_STAGE") or []):
        lines.append("MODEL.RESNETS.DEFORM_ON_PER_STAGE: deformable convolutions are not built here; set all to False")
    # 256 is the default of cvpods, with which depths 18 and 34 cannot be built there
    widths = (256,) if (settings.DEPTH or _DEEP) >= _DEEP else (64, 256)
    if settings.RES2_OUT_CHANNELS not in widths:
        lines.append(f"MODEL.RESNETS.RES2_OUT_CHANNELS is {settings.RES2_OUT_CHANNELS}: {_WIDTHS}, {widths[0]}")
    return lines


def resnet_settings(config: AttributeDict) -> dict[str, Any]:
    """Arguments of our `resnet` as `MODEL.RESNETS` and `MODEL.BACKBONE.FREEZE_AT` have them."""
    settings = config.MODEL.RESNETS
    return dict(
        depth=settings.DEPTH,
        norm=settings.NORM,
        groups=settings.NUM_GROUPS,
        width_per_group=settings.WIDTH_PER_GROUP,
        stride_in_1x1=settings.STRIDE_IN_1X1,
        freeze_at=max(0, config.MODEL.BACKBONE.FREEZE_AT),
        zero_residual=bool(settings.ZERO_INIT_RESIDUAL),
    )
