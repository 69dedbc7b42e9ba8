"""The second stage as old folders subclass it: our sampling, heads and mask branch behind cvpods' attributes and hooks.

Shapes: N = images, R = RoIs of the batch, K = foreground classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.compat.backbone import ShapeSpec
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.detector_settings import detector_settings
from cvpods_ext.compat.fast_rcnn import FastRCNNOutputLayers, FastRCNNOutputs
from cvpods_ext.compat.poolers import ROIPooler
from cvpods_ext.compat.rpn import Box2BoxTransform
from cvpods_ext.compat.structures import Boxes, Instances
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.detection.anchor_matching import PaddedTargets
from cvpods_ext.modeling.detection.mask_head import MaskHead
from cvpods_ext.modeling.detection.pooling import RoIPooler
from cvpods_ext.modeling.detection.postprocess import RawDetections, Selection
from cvpods_ext.modeling.detection.roi_heads import mask_branch_loss, with_masks
from cvpods_ext.modeling.detection.roi_sampling import RoIs, RoISampler
from cvpods_ext.modeling.detection.rpn import Proposals
from cvpods_ext.modeling.layers import trains
from cvpods_ext.structures import Targets


class StandardROIHeads(nn.Module):
    """One box stage and, with `MODEL.MASK_ON`, one mask head.

    Subclasses override `_init_box_head(cfg)` and `_forward_box(features, proposals)`; others replace `box_predictor`
    of a finished object. In training `_forward_box` gives losses, in a test the detections of each image. Losses that
    reach nothing trainable are left out, as everywhere in this package.
    """

    box_predictor: nn.Module
    box_head: nn.Module
    box_pooler: nn.Module

    def __init__(self, cfg: AttributeDict, input_shape: Mapping[str, ShapeSpec]) -> None:
        super().__init__()
        settings, heads, box = detector_settings(cfg), cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        self.in_features = list(heads.IN_FEATURES)
        self.feature_strides = {name: shape.stride for name, shape in input_shape.items()}
        self.feature_channels = {name: shape.channels for name, shape in input_shape.items()}
        self.num_classes = heads.NUM_CLASSES
        self.batch_size_per_image = settings["rois_per_image"]
        self.positive_sample_fraction = settings["roi_foreground"]
        self.cls_agnostic_bbox_reg = box.CLS_AGNOSTIC_BBOX_REG
        self.smooth_l1_beta = box.SMOOTH_L1_BETA
        self.box2box_transform = Box2BoxTransform(tuple(box.BBOX_REG_WEIGHTS))
        self.test_score_thresh = heads.SCORE_THRESH_TEST
        self.test_nms_thresh = heads.NMS_THRESH_TEST
        self.test_nms_type = cfg.MODEL.NMS_TYPE
        self.test_detections_per_img = cfg.TEST.DETECTIONS_PER_IMAGE
        self.train_on_pred_boxes = False
        self.sampler = RoISampler(
            self.num_classes,
            self.batch_size_per_image,
            self.positive_sample_fraction,
            iou_threshold=heads.IOU_THRESHOLDS[0],
        )
        self._init_box_head(cfg)
        self._init_mask_head(cfg)
        self._init_keypoint_head(cfg)

    # Hooks of subclasses

    def _init_box_head(self, cfg: AttributeDict) -> None:
        """Make `box_pooler`, `box_head` and `box_predictor`."""
        box = cfg.MODEL.ROI_BOX_HEAD
        self.train_on_pred_boxes = box.TRAIN_ON_PRED_BOXES
        side = box.POOLER_RESOLUTION
        self.box_pooler = ROIPooler(side, self._scales(), box.POOLER_SAMPLING_RATIO, box.POOLER_TYPE)
        self.box_head = cfg.build_box_head(cfg, ShapeSpec(channels=self._channels(), height=side, width=side))
        self.box_predictor = FastRCNNOutputLayers(
            self.box_head.output_size,  # type: ignore[arg-type]
            self.num_classes,
            self.cls_agnostic_bbox_reg,
        )

    def _init_mask_head(self, cfg: AttributeDict) -> None:
        """Make `mask_head`, None without masks. ConfigError for a head that is not MaskRCNNConvUpsampleHead."""
        self.mask_on = bool(cfg.MODEL.MASK_ON)
        self.mask_head = None
        if not self.mask_on:
            return
        side = cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
        head = cfg.build_mask_head(cfg, ShapeSpec(channels=self._channels(), height=side, width=side))
        if not isinstance(head, MaskHead):
            raise ConfigError(
                f"cfg.build_mask_head of net.py gives a {type(head).__name__}; only MaskRCNNConvUpsampleHead, or a "
                "subclass that changes its layers, is possible here"
            )
        head.pooler = RoIPooler(side, [self.feature_strides[name] or 0 for name in self.in_features])
        self.mask_head = head

    def _init_keypoint_head(self, cfg: AttributeDict) -> None:
        """Nothing: key points are refused with the config."""

    def _forward_box(self, features: Sequence[Tensor], proposals: list[Instances]) -> Any:
        """Maps of `in_features` and proposals of each image -> losses by name, or instances of each image."""
        pooled = self.box_pooler(features, [one.proposal_boxes for one in proposals])
        logits, deltas = self.box_predictor(self.box_head(pooled))
        outputs = FastRCNNOutputs(self.box2box_transform, logits, deltas, proposals, self.smooth_l1_beta)
        if not self.training:
            found, _ = outputs.inference(
                self.test_score_thresh, self.test_nms_thresh, self.test_nms_type, self.test_detections_per_img
            )
            return found
        if self.train_on_pred_boxes:
            with torch.no_grad():
                for one, boxes in zip(proposals, outputs.predict_boxes_for_gt_classes(), strict=True):
                    one.proposal_boxes = Boxes(boxes)
        return outputs.losses()

    # What the detector asks for, as of our own heads

    def losses(
        self,
        features: Sequence[Tensor],
        proposals: Proposals,
        image_sizes: Tensor,
        truth: PaddedTargets,
        targets: Sequence[Targets],
        *,
        trunk_trains: bool,
    ) -> dict[str, Tensor]:
        """loss_cls, loss_box_reg and loss_mask, those that reach a parameter that trains."""
        rois = self.sampler(proposals, truth)
        instances = _sampled(rois.to(image_sizes.device), image_sizes)
        losses = self._forward_box(self._named(features), instances)
        losses = {name: value for name, value in losses.items() if value.requires_grad or not torch.is_grad_enabled()}
        if self.mask_head is not None and (trunk_trains or trains(self.mask_head)):
            if self.train_on_pred_boxes:
                rois = rois._replace(boxes=Boxes.cat([one.proposal_boxes for one in instances]).tensor.cpu())
            losses["loss_mask"] = mask_branch_loss(self.mask_head, features, rois, targets, self.num_classes)
        return losses

    def detect(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> list[RawDetections]:
        """Detections per image, in the pixels of the network's input; masks only for the final boxes."""
        instances = [
            Instances(
                _size(image_sizes[i]),
                proposal_boxes=Boxes(proposals.boxes[i][valid]),
                objectness_logits=proposals.logits[i][valid],
            )
            for i, valid in enumerate(proposals.valid)
        ]
        found = [
            RawDetections(one.pred_boxes.tensor, one.scores, one.pred_classes)
            for one in self._forward_box(self._named(features), instances)
        ]
        return found if self.mask_head is None else with_masks(self.mask_head, features, found, Selection())

    def _named(self, features: Sequence[Tensor]) -> Maps:
        return Maps(self.in_features, features)

    def _scales(self) -> tuple[float, ...]:
        return tuple(1.0 / (self.feature_strides[name] or 1) for name in self.in_features)

    def _channels(self) -> int:
        return self.feature_channels[self.in_features[0]] or 0


class Maps(list[Tensor]):
    """The maps that regions are read from, in order, and by name as in folders that index them so."""

    def __init__(self, names: Sequence[str], maps: Sequence[Tensor]) -> None:
        super().__init__(maps[: len(names)])
        self._names = list(names)

    def __getitem__(self, item: Any) -> Any:
        return super().__getitem__(self._names.index(item) if isinstance(item, str) else item)


def _sampled(rois: RoIs, image_sizes: Tensor) -> list[Instances]:
    """RoIs of a batch, sorted by image, as one record for each image."""
    found = []
    for i, size in enumerate(image_sizes):
        own = rois.rows((rois.image == i).nonzero()[:, 0])
        boxes, truth = Boxes(own.boxes), Boxes(own.truth_boxes)
        found.append(Instances(_size(size), proposal_boxes=boxes, gt_boxes=truth, gt_classes=own.labels))
    return found


def _size(image_size: Tensor) -> tuple[int, int]:
    """(4,) = width, height, width, height -> (height, width)."""
    return int(image_size[1]), int(image_size[0])
