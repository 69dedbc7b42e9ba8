"""Adjustments of a trained classifier's logits, wrapped around it.

Shapes: R = RoIs in the batch, D = feature width, C = foreground classes; background is column C.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.layers import init_normal
from cvpods_ext.structures import Batch


class Calibration(nn.Module):
    """A classifier and what is done to its logits; by itself it changes nothing.

    In published files the classifier is `cls_score` and the adjustment's own tensors lie beside it, directly on the
    box predictor. A calibration therefore *is* the box predictor's body, see `box_head.box_predictor`.
    """

    bbox_pred: nn.Linear

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.cls_score = classifier

    def forward(self, features: Tensor) -> Tensor:
        """(R, D) -> (R, C + 1) logits."""
        return self.cls_score(features)


@runtime_checkable
class FittedCalibration(Protocol):
    """A calibration whose values are statistics of the logits over training data (`schedule.fit="statistics"`).

    While `accumulating` is on, its forward pass gives the logits of the wrapped classifier to `accumulate`.
    """

    accumulating: bool

    def accumulate(self, logits: Tensor) -> None:
        """Take in (R, C + 1) logits."""
        ...

    def synchronize(self) -> None:
        """Combine what the processes of a run accumulated; afterwards all hold the same values."""
        ...


@runtime_checkable
class AccumulatesStatistics(Protocol):
    """A model that can run just as far as the calibrations that are fitted."""

    def accumulate_statistics(self, batch: Batch) -> None:
        """Show the batch to every `FittedCalibration` that is accumulating."""
        ...


class DisAlign(Calibration):
    """Adaptive calibration of frozen logits (https://arxiv.org/abs/2103.16370, equations 3 to 5).

    With s = sigmoid(v.x + v0), one confidence per RoI, a foreground logit becomes s (a_c z_c + b_c) + (1 - s) z_c and
    background stays. Starts as the identity. 2 C + D + 1 values train.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__(classifier)
        num_classes, in_features = classifier.num_classes, classifier.in_features
        assert isinstance(num_classes, int)
        assert isinstance(in_features, int)
        self.num_classes, self.in_features = num_classes, in_features
        self.logit_scale = nn.Parameter(torch.ones(num_classes))
        self.logit_bias = nn.Parameter(torch.zeros(num_classes))
        self.confidence_layer = nn.Linear(in_features, 1)
        init_normal(self.confidence_layer, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """(R, D) -> (R, C + 1) logits; the confidence reads the raw feature, also around a cosine classifier."""
        return self.align(self.cls_score(features), features)

    def align(self, logits: Tensor, features: Tensor) -> Tensor:
        """(R, C + 1) logits of the wrapped classifier, (R, D) -> (R, C + 1) aligned logits."""
        logits = logits.to(self.logit_scale.dtype)  # autocast may have made them 16 bit
        confidence = self.confidence_layer(features).to(logits.dtype).sigmoid()
        foreground = logits[:, : self.num_classes]
        aligned = foreground + confidence * ((self.logit_scale - 1) * foreground + self.logit_bias)
        return torch.cat((aligned, logits[:, self.num_classes :]), dim=1)
