"""The region proposal network as old folders build it, and the box arithmetic that they ask for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cvpods_ext.compat.backbone import ShapeSpec
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.detector_settings import detector_settings
from cvpods_ext.modeling.detection import rpn
from cvpods_ext.modeling.detection.anchor_matching import PaddedTargets
from cvpods_ext.modeling.detection.box_coding import BoxCoder
from cvpods_ext.modeling.detection.rpn import AnchorSampler, ProposalSelection


class Box2BoxTransform(BoxCoder):
    """Boxes as offsets from reference boxes, under cvpods' names."""

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """(N, 4), (N, 4) -> (N, 4)."""
        return self.encode(src_boxes, target_boxes)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (N, 4 K) of boxes (N, 4) -> (N, 4 K)."""
        return self.decode(deltas.view(len(deltas), -1, 4), boxes[:, None]).reshape(len(deltas), -1)


class RPN(rpn.RPN):
    """Ours, from the keys of an old config and the named shapes of its backbone."""

    def __init__(self, cfg: AttributeDict, input_shape: Mapping[str, ShapeSpec]) -> None:
        settings, own = detector_settings(cfg), cfg.MODEL.RPN
        levels = [input_shape[name] for name in own.IN_FEATURES]
        low, high = own.IOU_THRESHOLDS
        super().__init__(
            levels[0].channels or 0,
            [level.stride or 0 for level in levels],
            anchor_sizes=settings["anchor_sizes"],
            convs=1,
            selection=ProposalSelection(settings["proposals_per_level"], settings["proposals"], own.NMS_THRESH),
            sampler=AnchorSampler(settings["anchors_per_image"], settings["anchor_foreground"], low, high),
        )
        self.coder = Box2BoxTransform(tuple(own.BBOX_REG_WEIGHTS))
        self.in_features = list(own.IN_FEATURES)
        self.loss_weight = float(own.LOSS_WEIGHT)

    def _losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, truth: PaddedTargets) -> dict[str, Tensor]:
        losses = super()._losses(logits, deltas, anchors, truth)
        return {name: value * self.loss_weight for name, value in losses.items()}
