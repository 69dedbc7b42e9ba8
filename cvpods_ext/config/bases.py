"""The few starting points that experiment folders change.

Recipe values of the LVIS bases: DisAlign (Zhang et al., CVPR 2021) and its published folders; 16 images per step,
learning rate 0.02, multi-scale training.
"""

from __future__ import annotations

from cvpods_ext.config.override import override
from cvpods_ext.config.schema import Config

MSRA_R50 = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"

# The four parameters that DisAlign adds to a box predictor, all that its second stage trains.
DISALIGN_PARAMETERS = (
    r"roi_heads\.box_predictor\.logit_scale",
    r"roi_heads\.box_predictor\.logit_bias",
    r"roi_heads\.box_predictor\.confidence_layer\.(weight|bias)",
)

MASK_RCNN_LVIS1 = override(
    Config(),
    data=dict(train="lvis_v1_train", test="lvis_v1_val"),
    model=dict(init=MSRA_R50),
    schedule=dict(iters=180_000, drops=(2 / 3, 8 / 9)),
)

MASK_RCNN_LVIS05 = override(
    MASK_RCNN_LVIS1,
    data=dict(train="lvis_v0.5_train", test="lvis_v0.5_val"),
    # The published v0.5 models of the first stage were tested without any score threshold.
    model=dict(score_threshold=0.0),
    schedule=dict(iters=90_000, drops=(2 / 3, 8 / 9)),
)

# Second stage: only the calibration is trained, for a twentieth of the first.
DISALIGN_LVIS1 = override(
    MASK_RCNN_LVIS1,
    model=dict(train_only=DISALIGN_PARAMETERS),
    schedule=dict(iters=9_000, drops=(8 / 9,)),
)

DISALIGN_LVIS05 = override(
    MASK_RCNN_LVIS05,
    model=dict(train_only=DISALIGN_PARAMETERS, score_threshold=0.0001),
    schedule=dict(iters=4_500, drops=(8 / 9,)),
)
