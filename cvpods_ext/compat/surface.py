"""What an old folder can import: modules of cvpods, their names, and where each is in this package. Imports nothing."""

from __future__ import annotations

_HERE = "cvpods_ext.compat"
_CONFIGS, _RCNN = f"{_HERE}.configs", f"{_HERE}.rcnn"
_BACKBONE, _HEADS, _ROI_HEADS = f"{_HERE}.backbone", f"{_HERE}.heads", f"{_HERE}.roi_heads"
_IMAGENET = f"{_HERE}.imagenet"
_STRUCTURES, _UTILS = f"{_HERE}.structures", f"{_HERE}.utils"

_PREDICTORS: dict[str, str] = dict.fromkeys(
    ("CosineFastRCNNOutputLayers", "DisAlignFastRCNNOutputLayers", "DisAlignCosineFastRCNNOutputLayers"),
    f"{_HERE}.fast_rcnn",
)
_CONFIG_CLASSES: dict[str, str] = dict.fromkeys(
    ("BaseConfig", "BaseDetectionConfig", "RCNNConfig", "RCNNFPNConfig", "BaseClassificationConfig"), _CONFIGS
)

SURFACE: dict[str, dict[str, str]] = {
    "cvpods": {},
    "cvpods.configs": _CONFIG_CLASSES,
    "cvpods.configs.base_config": {"BaseConfig": _CONFIGS},
    "cvpods.configs.base_detection_config": {"BaseDetectionConfig": _CONFIGS},
    "cvpods.configs.base_classification_config": {"BaseClassificationConfig": _CONFIGS},
    "cvpods.configs.rcnn_config": {"RCNNConfig": _CONFIGS},
    "cvpods.configs.rcnn_fpn_config": {"RCNNFPNConfig": _CONFIGS},
    "cvpods.configs.config_helper": {"find_key": _CONFIGS},
    "cvpods.layers": {"ShapeSpec": _BACKBONE, "cat": _UTILS, "DisAlignLinear": _IMAGENET},
    "cvpods.structures": {"Boxes": _STRUCTURES, "Instances": _STRUCTURES, "pairwise_iou": _STRUCTURES},
    "cvpods.utils": {"PathManager": _UTILS},
    "cvpods.modeling": {},
    "cvpods.modeling.backbone": {
        "Backbone": _BACKBONE,
        "build_resnet_backbone": _BACKBONE,
        "build_resnet_fpn_backbone": _BACKBONE,
    },
    "cvpods.modeling.backbone.resnet": {"build_resnet_backbone": _BACKBONE},
    "cvpods.modeling.backbone.fpn": {"build_resnet_fpn_backbone": _BACKBONE},
    "cvpods.modeling.box_regression": {"Box2BoxTransform": f"{_HERE}.rpn"},
    "cvpods.modeling.losses": {"GRWCrossEntropyLoss": _IMAGENET},
    "cvpods.modeling.meta_arch": {"GeneralizedRCNN": _RCNN, "Classification": _IMAGENET},
    "cvpods.modeling.meta_arch.imagenet": {"Classification": _IMAGENET},
    "cvpods.modeling.meta_arch.rcnn": {"GeneralizedRCNN": _RCNN},
    "cvpods.modeling.proposal_generator": {"RPN": f"{_HERE}.rpn"},
    "cvpods.modeling.poolers": {"ROIPooler": f"{_HERE}.poolers"},
    "cvpods.modeling.roi_heads": {"StandardROIHeads": _ROI_HEADS},
    "cvpods.modeling.roi_heads.roi_heads": {"StandardROIHeads": _ROI_HEADS},
    "cvpods.modeling.roi_heads.box_head": {"FastRCNNConvFCHead": _HEADS},
    "cvpods.modeling.roi_heads.mask_head": {"MaskRCNNConvUpsampleHead": _HEADS},
    "cvpods.modeling.roi_heads.fast_rcnn": {
        "FastRCNNOutputs": f"{_HERE}.fast_rcnn",
        "FastRCNNOutputLayers": f"{_HERE}.fast_rcnn",
        **_PREDICTORS,
    },
    "cvpods.modeling.roi_heads.disalign_fast_rcnn": _PREDICTORS,
}
