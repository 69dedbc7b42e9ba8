"""Complete detectors from their parts: Faster, Mask, Cascade and Cascade Mask R-CNN on a pyramid.

Each function is one assembly that can be read top to bottom; net.py of an experiment calls one of them. Everything
has the value of the published R50-FPN baselines unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from cvpods_ext.config.schema import Model
from cvpods_ext.modeling.backbones.resnet import resnet
from cvpods_ext.modeling.box_head import BoxHead
from cvpods_ext.modeling.box_stage import Scores
from cvpods_ext.modeling.cascade import CascadeRoIHeads
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.mask_head import MaskHead, MaskPredictor
from cvpods_ext.modeling.matching import Priorities, random_priorities
from cvpods_ext.modeling.necks.fpn import FPN
from cvpods_ext.modeling.necks.pyramid import Pyramid
from cvpods_ext.modeling.postprocess import Selection
from cvpods_ext.modeling.proposals import RPN
from cvpods_ext.modeling.rcnn import RCNN
from cvpods_ext.modeling.roi_heads import RoIHeads
from cvpods_ext.modeling.rois import RoISampler


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
    model: Model,
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
    return _rcnn(
        model,
        backbone,
        recipe,
        RoIHeads(
            box_head=_box_head(backbone, recipe),
            classifier=classifier or LinearClassifier(_box_features(recipe), num_classes),
            classification_loss=classification_loss or SoftmaxCrossEntropy(),
            scores=scores,
            class_agnostic_boxes=class_agnostic_boxes,
            mask_head=_mask_head(backbone, num_classes, mask_predictor, recipe),
            sampler=_sampler(num_classes, recipe),
            selection=_selection(model),
        ),
    )


def faster_rcnn_fpn(
    model: Model,
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
    return _rcnn(
        model,
        backbone,
        recipe,
        RoIHeads(
            box_head=_box_head(backbone, recipe),
            classifier=classifier or LinearClassifier(_box_features(recipe), num_classes),
            classification_loss=classification_loss or SoftmaxCrossEntropy(),
            scores=scores,
            class_agnostic_boxes=class_agnostic_boxes,
            mask_head=None,
            sampler=_sampler(num_classes, recipe),
            selection=_selection(model),
        ),
    )


def cascade_mask_rcnn_fpn(
    model: Model,
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
    return _rcnn(
        model,
        backbone,
        recipe,
        CascadeRoIHeads(
            box_heads=[_box_head(backbone, recipe) for _ in range(stages)],
            classifiers=_per_stage(classifier, recipe, num_classes, stages),
            classification_losses=[classification_loss() for _ in range(stages)],
            scores=scores,
            class_agnostic_boxes=class_agnostic_boxes,
            mask_head=_mask_head(backbone, num_classes, mask_predictor, recipe),
            sampler=_sampler(num_classes, recipe),
            selection=_selection(model),
        ),
    )


def cascade_rcnn_fpn(
    model: Model,
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
    return _rcnn(
        model,
        backbone,
        recipe,
        CascadeRoIHeads(
            box_heads=[_box_head(backbone, recipe) for _ in range(stages)],
            classifiers=_per_stage(classifier, recipe, num_classes, stages),
            classification_losses=[classification_loss() for _ in range(stages)],
            scores=scores,
            class_agnostic_boxes=class_agnostic_boxes,
            mask_head=None,
            sampler=_sampler(num_classes, recipe),
            selection=_selection(model),
        ),
    )


def _rcnn(model: Model, backbone: Pyramid, recipe: Recipe, heads: RoIHeads | CascadeRoIHeads) -> RCNN:
    return RCNN(
        backbone=backbone,
        proposal_generator=RPN(
            backbone.channels,
            backbone.strides,
            anchor_sizes=recipe.anchor_sizes,
            convs=recipe.rpn_convs,
            top_per_level=recipe.top_per_level,
            top=recipe.proposals,
            anchors_per_image=recipe.anchors_per_image,
            foreground_fraction=recipe.anchor_foreground,
            priorities=recipe.priorities,
        ),
        roi_heads=heads,
        pixel_mean=model.pixel_mean,
        pixel_std=model.pixel_std,
        float32_heads=recipe.float32_heads,
    )


def _box_features(recipe: Recipe) -> int:
    return recipe.box_fc[-1]


def _box_head(backbone: Pyramid, recipe: Recipe) -> BoxHead:
    return BoxHead(
        backbone.channels,
        backbone.strides[:-1],
        fc=recipe.box_fc,
        convs=recipe.box_convs,
        norm=recipe.head_norm,
    )


def _mask_head(backbone: Pyramid, num_classes: int, predictor: nn.Module | None, recipe: Recipe) -> MaskHead:
    return MaskHead(
        backbone.channels,
        backbone.strides[:-1],
        predictor or MaskPredictor(recipe.mask_width, num_classes),
        width=recipe.mask_width,
        convs=recipe.mask_convs,
        norm=recipe.head_norm,
    )


def _per_stage(
    classifier: Callable[[], nn.Module] | None, recipe: Recipe, num_classes: int, stages: int
) -> Sequence[nn.Module]:
    make = classifier or (lambda: LinearClassifier(_box_features(recipe), num_classes))
    return [make() for _ in range(stages)]


def _sampler(num_classes: int, recipe: Recipe) -> RoISampler:
    return RoISampler(num_classes, recipe.rois_per_image, recipe.roi_foreground, priorities=recipe.priorities)


def _selection(model: Model) -> Selection:
    return Selection(
        score_threshold=model.score_threshold,
        nms_threshold=model.nms_threshold,
        limit=model.detections_per_image,
        suppression=model.suppression,
        maskness_threshold=model.maskness_threshold,
    )
