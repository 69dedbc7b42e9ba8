"""Complete detectors from their parts: Faster, Mask, Cascade and Cascade Mask R-CNN on a pyramid.

net.py of an experiment calls one of the four functions. Everything has the value of the published R50-FPN baselines
unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.backbones.resnet import resnet
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.anchor_matching import Priorities, random_priorities
from cvpods_ext.modeling.detection.box_head import BoxHead
from cvpods_ext.modeling.detection.box_stage import Scores
from cvpods_ext.modeling.detection.cascade import CascadeRoIHeads
from cvpods_ext.modeling.detection.mask_head import MaskHead, MaskPredictor
from cvpods_ext.modeling.detection.postprocess import Selection
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.detection.roi_heads import RoIHeads
from cvpods_ext.modeling.detection.roi_sampling import RoISampler
from cvpods_ext.modeling.detection.rpn import RPN
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.necks.fpn import FPN
from cvpods_ext.modeling.necks.pyramid import Pyramid


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Sizes that a small network or a short schedule may want to change; pairs are (training, test)."""

    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchors_per_image: int = 256
    anchor_foreground: float = 0.5
    top_per_level: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (1000, 1000)
    rois_per_image: int = 512
    roi_foreground: float = 0.25
    box_fc: tuple[int, ...] = (1024, 1024)
    box_convs: tuple[int, ...] = ()
    mask_width: int = 256
    mask_convs: int = 4
    head_norm: str = ""
    rpn_convs: int = 1
    float32_heads: bool = False  # mixed precision ends at the pyramid
    priorities: Priorities = random_priorities  # draws the training samples


PUBLISHED = Recipe()
MakeMaskHead = Callable[[], MaskHead]  # made in turn, so that a seed gives every part the same weights


def resnet_fpn(
    depth: int = 50,
    *,
    norm: str = "FrozenBN",
    groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = True,
    freeze_at: int = 2,
    channels: int = 256,
) -> FPN:
    """ResNet or ResNeXt of published shape under a pyramid p2 to p6."""
    bottom_up = resnet(
        depth,
        norm=norm,
        groups=groups,
        width_per_group=width_per_group,
        stride_in_1x1=stride_in_1x1,
        freeze_at=freeze_at,
    )
    return FPN(bottom_up, channels)


def mask_rcnn_fpn(
    model: Detector,
    *,
    num_classes: int,
    backbone: Pyramid,
    classifier: nn.Module | None = None,
    classification_loss: ClassificationLoss | None = None,
    scores: Scores | None = None,
    mask_predictor: nn.Module | None = None,
    class_agnostic_boxes: bool = False,
    recipe: Recipe = PUBLISHED,
) -> RCNN:
    """Mask R-CNN; `classifier` is linear and `classification_loss` softmax cross entropy if left out."""
    parts = _Parts(model, num_classes, backbone, scores, class_agnostic_boxes, recipe)
    return parts.rcnn(parts.heads(classifier, classification_loss, partial(parts.mask_head, mask_predictor)))


def faster_rcnn_fpn(
    model: Detector,
    *,
    num_classes: int,
    backbone: Pyramid,
    classifier: nn.Module | None = None,
    classification_loss: ClassificationLoss | None = None,
    scores: Scores | None = None,
    class_agnostic_boxes: bool = False,
    recipe: Recipe = PUBLISHED,
) -> RCNN:
    """Faster R-CNN: boxes only."""
    parts = _Parts(model, num_classes, backbone, scores, class_agnostic_boxes, recipe)
    return parts.rcnn(parts.heads(classifier, classification_loss, None))


def cascade_mask_rcnn_fpn(
    model: Detector,
    *,
    num_classes: int,
    backbone: Pyramid,
    classifier: Callable[[], nn.Module] | None = None,
    classification_loss: Callable[[], ClassificationLoss] = SoftmaxCrossEntropy,
    scores: Scores | None = None,
    mask_predictor: nn.Module | None = None,
    class_agnostic_boxes: bool = True,
    stages: int = 3,
    recipe: Recipe = PUBLISHED,
) -> RCNN:
    """Cascade Mask R-CNN; `classifier` and `classification_loss` are called once per stage."""
    parts = _Parts(model, num_classes, backbone, scores, class_agnostic_boxes, recipe)
    return parts.rcnn(parts.cascade(stages, classifier, classification_loss, partial(parts.mask_head, mask_predictor)))


def cascade_rcnn_fpn(
    model: Detector,
    *,
    num_classes: int,
    backbone: Pyramid,
    classifier: Callable[[], nn.Module] | None = None,
    classification_loss: Callable[[], ClassificationLoss] = SoftmaxCrossEntropy,
    scores: Scores | None = None,
    class_agnostic_boxes: bool = True,
    stages: int = 3,
    recipe: Recipe = PUBLISHED,
) -> RCNN:
    """Cascade R-CNN: boxes only."""
    parts = _Parts(model, num_classes, backbone, scores, class_agnostic_boxes, recipe)
    return parts.rcnn(parts.cascade(stages, classifier, classification_loss, None))


@dataclass(frozen=True)
class _Parts:
    """What all assemblies are told, and the parts that follow from it."""

    model: Detector
    num_classes: int
    backbone: Pyramid
    scores: Scores | None
    class_agnostic: bool
    recipe: Recipe

    def rcnn(self, heads: RoIHeads | CascadeRoIHeads) -> RCNN:
        recipe = self.recipe
        return RCNN(
            backbone=self.backbone,
            proposal_generator=RPN(
                self.backbone.channels,
                self.backbone.strides,
                anchor_sizes=recipe.anchor_sizes,
                convs=recipe.rpn_convs,
                top_per_level=recipe.top_per_level,
                top=recipe.proposals,
                anchors_per_image=recipe.anchors_per_image,
                foreground_fraction=recipe.anchor_foreground,
                priorities=recipe.priorities,
            ),
            roi_heads=heads,
            pixel_mean=self.model.pixel_mean,
            pixel_std=self.model.pixel_std,
            float32_heads=recipe.float32_heads,
        )

    def heads(
        self, classifier: nn.Module | None, loss: ClassificationLoss | None, mask_head: MakeMaskHead | None
    ) -> RoIHeads:
        return RoIHeads(
            box_head=self.box_head(),
            classifier=classifier or self.linear_classifier(),
            classification_loss=loss or SoftmaxCrossEntropy(),
            scores=self.scores,
            class_agnostic_boxes=self.class_agnostic,
            mask_head=None if mask_head is None else mask_head(),
            sampler=self.sampler(),
            selection=self.selection(),
        )

    def cascade(
        self,
        stages: int,
        classifier: Callable[[], nn.Module] | None,
        loss: Callable[[], ClassificationLoss],
        mask_head: MakeMaskHead | None,
    ) -> CascadeRoIHeads:
        return CascadeRoIHeads(
            box_heads=[self.box_head() for _ in range(stages)],
            classifiers=[(classifier or self.linear_classifier)() for _ in range(stages)],
            classification_losses=[loss() for _ in range(stages)],
            scores=self.scores,
            class_agnostic_boxes=self.class_agnostic,
            mask_head=None if mask_head is None else mask_head(),
            sampler=self.sampler(),
            selection=self.selection(),
        )

    def linear_classifier(self) -> LinearClassifier:
        return LinearClassifier(self.recipe.box_fc[-1], self.num_classes)

    def box_head(self) -> BoxHead:
        recipe = self.recipe
        strides = self.backbone.strides[:-1]
        return BoxHead(self.backbone.channels, strides, fc=recipe.box_fc, convs=recipe.box_convs, norm=recipe.head_norm)

    def mask_head(self, predictor: nn.Module | None) -> MaskHead:
        recipe = self.recipe
        return MaskHead(
            self.backbone.channels,
            self.backbone.strides[:-1],
            predictor or MaskPredictor(recipe.mask_width, self.num_classes),
            width=recipe.mask_width,
            convs=recipe.mask_convs,
            norm=recipe.head_norm,
        )

    def sampler(self) -> RoISampler:
        recipe = self.recipe
        return RoISampler(self.num_classes, recipe.rois_per_image, recipe.roi_foreground, priorities=recipe.priorities)

    def selection(self) -> Selection:
        return Selection(
            score_threshold=self.model.score_threshold,
            nms_threshold=self.model.nms_threshold,
            limit=self.model.detections_per_image or None,
            limit_per_class=self.model.detections_per_class or None,
            suppression=self.model.suppression,
            maskness_threshold=self.model.maskness_threshold,
        )
