"""The builders of version 0.1 under their old names, so that experiment folders written for it still train and test.

New folders use `modeling.detection.build`, where sizes come from the config instead of a `Recipe`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.detection import build
from cvpods_ext.modeling.detection.build import BoxBranch, CascadeBoxBranch
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.necks.fpn import resnet_fpn
from cvpods_ext.modeling.necks.pyramid import Pyramid

__all__ = ["Recipe", "cascade_mask_rcnn_fpn", "cascade_rcnn_fpn", "faster_rcnn_fpn", "mask_rcnn_fpn", "resnet_fpn"]


def Recipe(**sizes: Any) -> Mapping[str, Any]:
    """Sizes of a detector by their names of version 0.1."""
    if "top_per_level" in sizes:
        sizes["proposals_per_level"] = sizes.pop("top_per_level")
    return sizes


def faster_rcnn_fpn(settings: Detector, *, num_classes: int, backbone: Pyramid, **parts: Any) -> RCNN:
    """Faster R-CNN from the keywords of version 0.1."""
    settings, box, _ = _single(settings, **parts)
    return build.faster_rcnn_fpn(settings, num_classes, backbone, box)


def mask_rcnn_fpn(settings: Detector, *, num_classes: int, backbone: Pyramid, **parts: Any) -> RCNN:
    """Mask R-CNN from the keywords of version 0.1."""
    settings, box, mask_predictor = _single(settings, **parts)
    return build.mask_rcnn_fpn(settings, num_classes, backbone, box, mask_predictor)


def cascade_rcnn_fpn(settings: Detector, *, num_classes: int, backbone: Pyramid, **parts: Any) -> RCNN:
    """Cascade R-CNN from the keywords of version 0.1."""
    settings, box, _ = _cascade(settings, **parts)
    return build.cascade_rcnn_fpn(settings, num_classes, backbone, box)


def cascade_mask_rcnn_fpn(settings: Detector, *, num_classes: int, backbone: Pyramid, **parts: Any) -> RCNN:
    """Cascade Mask R-CNN from the keywords of version 0.1."""
    settings, box, mask_predictor = _cascade(settings, **parts)
    return build.cascade_mask_rcnn_fpn(settings, num_classes, backbone, box, mask_predictor)


def _single(
    settings: Detector,
    *,
    classifier: nn.Module | None = None,
    classification_loss: ClassificationLoss | None = None,
    mask_predictor: nn.Module | None = None,
    class_agnostic_boxes: bool = False,
    recipe: Mapping[str, Any] | None = None,
) -> tuple[Detector, BoxBranch, nn.Module | None]:
    box = BoxBranch(classifier=classifier, loss=classification_loss or SoftmaxCrossEntropy())
    return _settings(settings, class_agnostic_boxes, recipe), box, mask_predictor


def _cascade(
    settings: Detector,
    *,
    classifier: Callable[[], nn.Module] | None = None,
    classification_loss: Callable[[], ClassificationLoss] = SoftmaxCrossEntropy,
    mask_predictor: nn.Module | None = None,
    class_agnostic_boxes: bool = True,
    recipe: Mapping[str, Any] | None = None,
) -> tuple[Detector, CascadeBoxBranch, nn.Module | None]:
    box = CascadeBoxBranch(classifier=classifier, loss=classification_loss)
    return _settings(settings, class_agnostic_boxes, recipe), box, mask_predictor


def _settings(settings: Detector, class_agnostic_boxes: bool, recipe: Mapping[str, Any] | None) -> Detector:
    warnings.warn(
        "net.py uses cvpods_ext.modeling.assemble of version 0.1. It still works; CHANGELOG.md says how a folder moves "
        "to cvpods_ext.modeling.detection.build",
        FutureWarning,
        stacklevel=4,
    )
    return replace(settings, class_agnostic_boxes=class_agnostic_boxes, **(recipe or {}))
