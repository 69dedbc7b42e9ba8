"""Complete detectors from their parts: Faster, Mask, Cascade and Cascade Mask R-CNN on a pyramid.

net.py of an experiment makes a backbone, says how boxes are classified and calls one of the four functions; every other
number is a field of `config.detection.Detector`. Parts are made in a fixed order, so that a seed always gives them the
same initial weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.calibration import Calibration
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.anchor_matching import Priorities, random_priorities
from cvpods_ext.modeling.detection.box_coding import BoxCoder
from cvpods_ext.modeling.detection.box_head import BoxHead, box_predictor
from cvpods_ext.modeling.detection.box_stage import BoxStage
from cvpods_ext.modeling.detection.cascade import CascadeRoIHeads
from cvpods_ext.modeling.detection.mask_head import MaskHead, MaskPredictor
from cvpods_ext.modeling.detection.postprocess import Selection
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.detection.roi_heads import RoIHeads
from cvpods_ext.modeling.detection.roi_sampling import RoISampler
from cvpods_ext.modeling.detection.rpn import RPN, AnchorSampler, ProposalSelection
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.necks.pyramid import Pyramid

MakeMaskHead = Callable[[], MaskHead]


@dataclass(frozen=True, kw_only=True)
class BoxBranch:
    """How boxes are classified: the classifier, linear if left out, and its loss, which also reads its scores."""

    classifier: nn.Module | None = None
    loss: ClassificationLoss = field(default_factory=SoftmaxCrossEntropy)


@dataclass(frozen=True, kw_only=True)
class CascadeBoxBranch:
    """The same for a cascade: every stage makes its own classifier, which `calibration` wraps, and its own loss."""

    classifier: Callable[[], nn.Module] | None = None
    calibration: Callable[[nn.Module], Calibration] | None = None
    loss: Callable[[], ClassificationLoss] = SoftmaxCrossEntropy


def faster_rcnn_fpn(
    settings: Detector,
    num_classes: int,
    backbone: Pyramid,
    box: BoxBranch | None = None,
    priorities: Priorities = random_priorities,
) -> RCNN:
    """Faster R-CNN: boxes only. `priorities` draws the training samples."""
    parts = _Parts(settings, num_classes, backbone, priorities)
    return parts.rcnn(parts.heads(box or BoxBranch(), None))


def mask_rcnn_fpn(
    settings: Detector,
    num_classes: int,
    backbone: Pyramid,
    box: BoxBranch | None = None,
    mask_predictor: nn.Module | None = None,
    priorities: Priorities = random_priorities,
) -> RCNN:
    """Mask R-CNN; `mask_predictor` is linear and class-specific if left out."""
    parts = _Parts(settings, num_classes, backbone, priorities)
    return parts.rcnn(parts.heads(box or BoxBranch(), partial(parts.mask_head, mask_predictor)))


def cascade_rcnn_fpn(
    settings: Detector,
    num_classes: int,
    backbone: Pyramid,
    box: CascadeBoxBranch | None = None,
    priorities: Priorities = random_priorities,
) -> RCNN:
    """Cascade R-CNN: boxes only, one stage for each of `settings.cascade_ious`."""
    parts = _Parts(settings, num_classes, backbone, priorities)
    return parts.rcnn(parts.cascade_heads(box or CascadeBoxBranch(), None))


def cascade_mask_rcnn_fpn(
    settings: Detector,
    num_classes: int,
    backbone: Pyramid,
    box: CascadeBoxBranch | None = None,
    mask_predictor: nn.Module | None = None,
    priorities: Priorities = random_priorities,
) -> RCNN:
    """Cascade Mask R-CNN: the box stages of a cascade and the mask head of Mask R-CNN."""
    parts = _Parts(settings, num_classes, backbone, priorities)
    return parts.rcnn(parts.cascade_heads(box or CascadeBoxBranch(), partial(parts.mask_head, mask_predictor)))


@dataclass(frozen=True)
class _Parts:
    """The parts that follow from what all four assemblies are given."""

    settings: Detector
    num_classes: int
    backbone: Pyramid
    priorities: Priorities

    def rcnn(self, heads: RoIHeads | CascadeRoIHeads) -> RCNN:
        settings = self.settings
        rpn = RPN(
            self.backbone.channels,
            self.backbone.strides,
            anchor_sizes=settings.anchor_sizes,
            convs=settings.rpn_convs,
            selection=ProposalSelection(settings.proposals_per_level, settings.proposals, nms_threshold=0.7),
            sampler=AnchorSampler(settings.anchors_per_image, settings.anchor_foreground, 0.3, 0.7, self.priorities),
        )
        return RCNN(
            backbone=self.backbone,
            proposal_generator=rpn,
            roi_heads=heads,
            pixel_mean=settings.pixel_mean,
            pixel_std=settings.pixel_std,
            float32_heads=settings.float32_heads,
        )

    def heads(self, box: BoxBranch, make_mask_head: MakeMaskHead | None) -> RoIHeads:
        head = self.box_head()
        classifier = box.classifier or self.linear_classifier()
        mask_head = make_mask_head() if make_mask_head else None
        stage = self.box_stage(head, classifier, box.loss)
        return RoIHeads(stage, mask_head, self.roi_sampler(iou_threshold=0.5), self.selection())

    def cascade_heads(self, box: CascadeBoxBranch, make_mask_head: MakeMaskHead | None) -> CascadeRoIHeads:
        ious = self.settings.cascade_ious
        make, calibrate = box.classifier or self.linear_classifier, box.calibration
        heads = [self.box_head() for _ in ious]
        classifiers = [calibrate(make()) if calibrate else make() for _ in ious]
        losses = [box.loss() for _ in ious]
        mask_head = make_mask_head() if make_mask_head else None
        stages = [
            self.box_stage(head, classifier, loss, delta_scale=k)
            for k, (head, classifier, loss) in enumerate(zip(heads, classifiers, losses, strict=True), start=1)
        ]
        return CascadeRoIHeads(stages, ious, mask_head, self.roi_sampler(ious[0]), self.selection())

    def box_head(self) -> BoxHead:
        settings, strides = self.settings, self.backbone.strides[:-1]
        return BoxHead(
            self.backbone.channels,
            strides,
            fc=settings.box_fc,
            convs=settings.box_convs,
            norm=settings.head_norm,
            resolution=7,
        )

    def linear_classifier(self) -> LinearClassifier:
        return LinearClassifier(self.settings.box_features, self.num_classes)

    def box_stage(
        self, head: BoxHead, classifier: nn.Module, loss: ClassificationLoss, delta_scale: float = 1
    ) -> BoxStage:
        """Deltas become smaller from stage to stage of a cascade; `delta_scale` makes them comparable."""
        regressions = 1 if self.settings.class_agnostic_boxes else self.num_classes
        predictor = box_predictor(classifier, head.out_features, regressions)
        coder = BoxCoder((10.0 * delta_scale, 10.0 * delta_scale, 5.0 * delta_scale, 5.0 * delta_scale))
        return BoxStage(head, predictor, loss, coder, self.num_classes)

    def mask_head(self, predictor: nn.Module | None) -> MaskHead:
        settings, strides = self.settings, self.backbone.strides[:-1]
        predictor = predictor or MaskPredictor(settings.mask_width, self.num_classes)
        return MaskHead(
            self.backbone.channels,
            strides,
            predictor,
            width=settings.mask_width,
            convs=settings.mask_convs,
            norm=settings.head_norm,
            resolution=14,
        )

    def roi_sampler(self, iou_threshold: float) -> RoISampler:
        settings = self.settings
        return RoISampler(
            self.num_classes, settings.rois_per_image, settings.roi_foreground, iou_threshold, self.priorities
        )

    def selection(self) -> Selection:
        settings = self.settings
        return Selection(
            score_threshold=settings.score_threshold,
            nms_threshold=settings.nms_threshold,
            limit=settings.detections_per_image or None,
            limit_per_class=settings.detections_per_class or None,
            suppression=settings.suppression,
            maskness_threshold=settings.maskness_threshold,
        )
