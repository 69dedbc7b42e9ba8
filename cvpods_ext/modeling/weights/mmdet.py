"""Two-stage detectors of mmdetection 2 and 3 under our names: Faster, Mask and Cascade R-CNN with ResNet pyramids.

Classes are in the order of category ids and background is the last logit in both, anchors and their order are equal,
and so are the deviations of box deltas but for the last stage of a cascade. Facts: mmdetection's configs
`_base_/models/*_r50_fpn.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from cvpods_ext.errors import WeightsError

State = dict[str, Tensor]

_LAYERS = (
    (r"neck\.lateral_convs\.(\d)\.conv", "backbone.fpn_lateral{+2}"),
    (r"neck\.fpn_convs\.(\d)\.conv", "backbone.fpn_output{+2}"),
    (r"rpn_head\.rpn_conv", "proposal_generator.rpn_head.conv"),
    (r"rpn_head\.rpn_cls", "proposal_generator.rpn_head.objectness_logits"),
    (r"rpn_head\.rpn_reg", "proposal_generator.rpn_head.anchor_deltas"),
    (r"roi_head\.bbox_head\.(?:(\d)\.)?shared_fcs\.(\d)", "roi_heads.box_head.{stage}fc{+1}"),
    (r"roi_head\.bbox_head\.(?:(\d)\.)?fc_cls", "roi_heads.box_predictor.{stage}cls_score"),
    (r"roi_head\.bbox_head\.(?:(\d)\.)?fc_reg", "roi_heads.box_predictor.{stage}bbox_pred"),
    (r"roi_head\.mask_head\.convs\.(\d)\.conv", "roi_heads.mask_head.mask_fcn{+1}"),
    (r"roi_head\.mask_head\.upsample", "roi_heads.mask_head.deconv"),
    (r"roi_head\.mask_head\.conv_logits", "roi_heads.mask_head.predictor"),
)
# The last stage divides deltas by (.033, .033, .067, .067); our weights of boxes are (30, 30, 15, 15).
_LAST_STAGE = "roi_heads.box_predictor.2.bbox_pred."
_LAST_STAGE_FACTORS = (0.033 * 30, 0.033 * 30, 0.067 * 15, 0.067 * 15)

EXPECTATION = (
    "images are RGB, normalised with mean (123.675, 116.28, 103.53) and std (58.395, 57.12, 57.375), and bottlenecks "
    "stride in their 3x3 convolution, unless its config says style='caffe' (then BGR, std 1, and the 1x1 convolution); "
    "classes are taken to be in the order of category ids"
)


def is_mmdet(names: Iterable[str]) -> bool:
    """Whether these are the names of such a detector."""
    names = set(names)
    return "neck.lateral_convs.0.conv.weight" in names and any(name.startswith("backbone.layer1.") for name in names)


def mmdet_name(name: str, resnet_name: Callable[[str], str | None]) -> str | None:
    """Our name of a tensor; None where we have no counterpart, such as the three mask heads of its cascades."""
    if name.startswith("backbone."):
        found = resnet_name(name.removeprefix("backbone."))
        return found and f"backbone.bottom_up.{found}"
    layer, _, kind = name.rpartition(".")
    for pattern, ours in _LAYERS:
        if found := re.fullmatch(pattern, layer):
            groups = found.groups()
            stage = f"{groups[0]}." if "{stage}" in ours and groups[0] is not None else ""
            number = re.search(r"\{\+(\d)\}", ours)
            if number:
                ours = ours.replace(number[0], str(int(groups[-1]) + int(number[1])))
            return f"{ours.replace('{stage}', stage)}.{kind}"
    return None


def from_mmdet(state: Mapping[str, Tensor], resnet_name: Callable[[str], str | None]) -> State:
    """Rename, and scale the boxes of a cascade's last stage to our deviations; what has no counterpart keeps its name.

    WeightsError for mmdetection 1, whose background is the first logit.
    """
    if any(name.startswith("bbox_head.") for name in state) and not any(name.startswith("roi_head.") for name in state):
        raise WeightsError(
            "this is a detector of mmdetection 1, whose heads lie elsewhere and whose background comes first; convert "
            "it by mmdetection 2's tools/model_converters/upgrade_model_version.py, then give the new file"
        )
    renamed: State = {}
    for name, value in state.items():
        ours = mmdet_name(name, resnet_name) or name
        if ours.startswith(_LAST_STAGE):
            factors = torch.tensor(_LAST_STAGE_FACTORS, dtype=torch.float64).repeat(len(value) // 4)
            value = (value.double() * factors.view(-1, *[1] * (value.ndim - 1))).to(value.dtype)
        renamed[ours] = value
    return renamed
