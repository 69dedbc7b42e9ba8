"""Softmax cross entropy over the foreground classes and background: the baseline of every comparison.

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext


class SoftmaxCrossEntropy(ClassificationLoss):
    """Mean over all sampled RoIs, background included."""

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar."""
        if len(labels) == 0:
            return logits.sum() * 0
        return F.cross_entropy(logits.float(), labels)
