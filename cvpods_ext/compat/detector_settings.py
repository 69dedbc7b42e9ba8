"""The keys of an old config that describe a two-stage detector, as fields of our `Detector`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvpods_ext.compat.configs import AttributeDict, flat
from cvpods_ext.compat.resnet_settings import refused_resnet
from cvpods_ext.compat.translation import FixedValues, refused_values
from cvpods_ext.errors import ConfigError

SUPPRESSION = {"normal": "hard", "softnms-linear": "linear", "softnms-gaussian": "gaussian"}

# Keys that have one value here, with what to do about another. Adapters read every other key of these sections.
_FIXED: FixedValues = {
    "MODEL.RESNETS.OUT_FEATURES": ((["res2", "res3", "res4", "res5"],), "pyramids use all four stages"),
    "MODEL.KEYPOINT_ON": ((False,), "key points are not built here"),
    "MODEL.LOAD_PROPOSALS": ((False,), "proposals are computed, never loaded"),
    "MODEL.PROPOSAL_GENERATOR.NAME": (("RPN",), "the region proposal network is the only generator"),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": ((0,), "boxes without area are dropped, no others"),
    "MODEL.FPN.IN_FEATURES": ((["res2", "res3", "res4", "res5"],), "pyramids use all four stages"),
    "MODEL.FPN.FUSE_TYPE": (("sum",), "pyramids add up"),
    "MODEL.FPN.BLOCK_IN_FEATURES": (("p5",), "the last level is every second pixel of p5"),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": (([[0.5, 1.0, 2.0]],), "anchors have the three published shapes"),
    "MODEL.ANCHOR_GENERATOR.OFFSET": ((0.0,), "anchors are centred on the corner of a cell"),
    "MODEL.RPN.IN_FEATURES": ((["p2", "p3", "p4", "p5", "p6"],), "proposals read all five levels"),
    "MODEL.RPN.BOUNDARY_THRESH": ((-1,), "anchors outside of the image are kept"),
    "MODEL.RPN.IOU_LABELS": (([0, -1, 1],), "anchors are background, ignored or foreground"),
    "MODEL.RPN.SMOOTH_L1_BETA": ((0.0,), "box losses are plain L1"),
    "MODEL.RPN.NMS_TYPE": (("normal",), "proposals are suppressed by hard NMS"),
    "MODEL.ROI_HEADS.IN_FEATURES": ((["p2", "p3", "p4", "p5"],), "regions are read from the first four levels"),
    "MODEL.ROI_HEADS.IOU_LABELS": (([0, 1],), "regions are background or foreground"),
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": ((True,), "the objects themselves are among the proposals"),
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": ((0.0,), "box losses are plain L1"),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": ((0,), "RoIAlign takes as many samples as a cell has pixels"),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": (("ROIAlignV2",), "RoIAlign is the aligned one"),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": ((7,), "boxes are pooled to 7x7 cells"),
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": ((0,), "RoIAlign takes as many samples as a cell has pixels"),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": (("ROIAlignV2",), "RoIAlign is the aligned one"),
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": ((14,), "masks are pooled to 14x14 cells"),
}


def refused(config: AttributeDict) -> list[str]:
    """One line for each setting of the network that our modules do not have; [] if there is none."""
    found = flat(config)
    lines = [*refused_values(config, _FIXED), *refused_resnet(config)]
    if found.get("MODEL.NMS_TYPE", "normal") not in SUPPRESSION:
        lines.append(f"MODEL.NMS_TYPE is {found['MODEL.NMS_TYPE']!r}; possible are {', '.join(SUPPRESSION)}")
    sizes = found.get("MODEL.ANCHOR_GENERATOR.SIZES", [])
    if any(len(set(level)) != 1 for level in sizes):
        lines.append(f"MODEL.ANCHOR_GENERATOR.SIZES is {sizes!r}: a level has anchors of one size")
    return lines


def detector_settings(config: AttributeDict) -> dict[str, Any]:
    """Fields of `config.detection.Detector` as an old config has them. ConfigError for what they cannot express."""
    if lines := refused(config):
        raise ConfigError("\n".join(["this network cannot be built from our modules:", *lines]))
    model = config.MODEL
    rpn, heads, box, mask = model.RPN, model.ROI_HEADS, model.ROI_BOX_HEAD, model.ROI_MASK_HEAD
    if box.NORM != mask.NORM and box.NUM_CONV and model.MASK_ON:
        raise ConfigError(f"MODEL.ROI_BOX_HEAD.NORM is {box.NORM!r}, ROI_MASK_HEAD.NORM {mask.NORM!r}: set both alike")
    return dict(
        pixel_mean=tuple(map(float, model.PIXEL_MEAN)),
        pixel_std=tuple(map(float, model.PIXEL_STD)),
        anchor_sizes=tuple(float(level[0]) for level in model.ANCHOR_GENERATOR.SIZES),
        anchors_per_image=rpn.BATCH_SIZE_PER_IMAGE,
        anchor_foreground=float(rpn.POSITIVE_FRACTION),
        proposals_per_level=(rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
        proposals=(rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
        rois_per_image=heads.BATCH_SIZE_PER_IMAGE,
        roi_foreground=float(heads.POSITIVE_FRACTION),
        box_convs=(box.CONV_DIM,) * box.NUM_CONV,
        box_fc=(box.FC_DIM,) * box.NUM_FC,
        class_agnostic_boxes=bool(box.CLS_AGNOSTIC_BBOX_REG),
        mask_convs=mask.NUM_CONV,
        mask_width=mask.CONV_DIM,
        head_norm=mask.NORM if model.MASK_ON else box.NORM,
        suppression=SUPPRESSION[model.NMS_TYPE],
        nms_threshold=float(heads.NMS_THRESH_TEST),
        score_threshold=float(heads.SCORE_THRESH_TEST),
        detections_per_image=config.TEST.DETECTIONS_PER_IMAGE,
    )


def write_back(config: AttributeDict, changed: Mapping[str, Any]) -> None:
    """Set the old keys of `Detector` fields that were overridden under our names. ConfigError for one without a key."""
    model = config.MODEL
    for name, value in changed.items():
        if name == "frozen_statistics_move":
            continue  # read where the network is built
        if name in ("pixel_mean", "pixel_std"):
            model[name.upper()] = list(value)
        elif name == "anchor_sizes":
            model.ANCHOR_GENERATOR.SIZES = [[size] for size in value]
        elif name == "proposals_per_level":
            model.RPN.PRE_NMS_TOPK_TRAIN, model.RPN.PRE_NMS_TOPK_TEST = value
        elif name == "proposals":
            model.RPN.POST_NMS_TOPK_TRAIN, model.RPN.POST_NMS_TOPK_TEST = value
        elif name == "suppression":
            model.NMS_TYPE = next(old for old, ours in SUPPRESSION.items() if ours == value)
        elif name in _SAME_VALUE:
            section, key = _SAME_VALUE[name].rsplit(".", 1)
            node: Any = config
            for part in section.split("."):
                node = node[part]
            node[key] = value
        else:
            raise ConfigError(f"model.{name} cannot be changed for an old folder; change the key of its config.py")


_SAME_VALUE = {
    "anchors_per_image": "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "anchor_foreground": "MODEL.RPN.POSITIVE_FRACTION",
    "rois_per_image": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "roi_foreground": "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "mask_convs": "MODEL.ROI_MASK_HEAD.NUM_CONV",
    "mask_width": "MODEL.ROI_MASK_HEAD.CONV_DIM",
    "class_agnostic_boxes": "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG",
    "nms_threshold": "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "score_threshold": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "detections_per_image": "TEST.DETECTIONS_PER_IMAGE",
}
