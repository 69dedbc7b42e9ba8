"""Classifiers of image features, and DisAlign as its authors use it for classification.

Shapes: B = images, D = feature width, K = classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.classifiers import ScaledCosine


class CosineHead(ScaledCosine):
    """Scaled cosine similarities of K classes, no background; see `classifiers.CosineClassifier`."""

    def __init__(self, in_features: int, num_classes: int, *, scale: float = 20.0) -> None:
        super().__init__(in_features, num_classes, scale=scale)
        self.num_classes = num_classes


class LinearHead(nn.Linear):
    """One weight vector and one bias per class, as EVA-02's authors start it: bias 0, weights of deviation 0.02."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.num_classes = num_classes
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)


def aligned(logits: Tensor, confidence: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """(B, K), (B, 1) in [0, 1], (1, K), (1, K) -> (1 + s a) z + s b, DisAlign's form for classification.

    It is not the one for detection (`calibration.DisAlign`): with a = 1 and b = 0, where training starts, it is not
    the identity.
    """
    return (1 + confidence * scale) * logits + confidence * bias


class _Calibrated(nn.Module):
    """The values of `aligned` beside a classifier, under the released code's names."""

    logit_scale: nn.Parameter
    logit_bias: nn.Parameter
    confidence_layer: nn.Linear

    def _add_calibration(self, in_features: int, num_classes: int) -> None:
        """As the released code starts it."""
        self.logit_scale = nn.Parameter(torch.ones(1, num_classes))
        self.logit_bias = nn.Parameter(torch.zeros(1, num_classes))
        self.confidence_layer = nn.Linear(in_features, 1)
        nn.init.constant_(self.confidence_layer.weight, 0.1)
        nn.init.zeros_(self.confidence_layer.bias)

    def _aligned(self, logits: Tensor, features: Tensor) -> Tensor:
        """(B, K), (B, D) -> (B, K) float32."""
        confidence = self.confidence_layer(features).float().sigmoid()
        return aligned(logits.float(), confidence, self.logit_scale, self.logit_bias)


class DisAlignLinear(LinearHead, _Calibrated):
    """DisAlign's second stage (https://arxiv.org/abs/2103.16370) on a linear head.

    `logit_scale`, `logit_bias` and `confidence_layer`, 2 K + D + 1 values, are what it trains beside a trained head.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self._add_calibration(in_features, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        return self._aligned(super().forward(input), input)


class DisAlignCosine(CosineHead, _Calibrated):
    """The same on a cosine head."""

    def __init__(self, in_features: int, num_classes: int, *, scale: float = 20.0) -> None:
        super().__init__(in_features, num_classes, scale=scale)
        self._add_calibration(in_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        return self._aligned(super().forward(features), features)
