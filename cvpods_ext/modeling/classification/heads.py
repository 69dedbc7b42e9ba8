"""Classifiers of image features, and DisAlign as its authors use it for classification.

Shapes: B = images, D = feature width, K = classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.calibration import Calibration
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


class DisAlignHead(Calibration):
    """DisAlign's second stage (https://arxiv.org/abs/2103.16370) around any trained head, which stays as it is.

    2 K + D + 1 values train: `logit_scale`, `logit_bias` and `confidence_layer`.
    """

    def __init__(self, classifier: CosineHead | LinearHead) -> None:
        super().__init__(classifier)
        self.in_features, self.num_classes = classifier.in_features, classifier.num_classes
        self.logit_scale = nn.Parameter(torch.ones(1, self.num_classes))
        self.logit_bias = nn.Parameter(torch.zeros(1, self.num_classes))
        self.confidence_layer = _confidence_layer(self.in_features)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        confidence = self.confidence_layer(features).float().sigmoid()
        return aligned(self.cls_score(features).float(), confidence, self.logit_scale, self.logit_bias)


class DisAlignLinear(LinearHead):
    """`DisAlignHead` around a linear head in one layer: the names of the released code's DisAlignLinear."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.logit_scale = nn.Parameter(torch.ones(1, num_classes))
        self.logit_bias = nn.Parameter(torch.zeros(1, num_classes))
        self.confidence_layer = _confidence_layer(in_features)

    def forward(self, input: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        confidence = self.confidence_layer(input).float().sigmoid()
        return aligned(super().forward(input).float(), confidence, self.logit_scale, self.logit_bias)


def _confidence_layer(in_features: int) -> nn.Linear:
    """As the released code starts it."""
    layer = nn.Linear(in_features, 1)
    nn.init.constant_(layer.weight, 0.1)
    nn.init.zeros_(layer.bias)
    return layer
