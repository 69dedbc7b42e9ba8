"""Generalised re-weighting, the loss of DisAlign's second stage (https://arxiv.org/abs/2103.16370, section 3.3).

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext


def grw_weights(class_counts: Tensor, exponent: float) -> Tensor:
    """(C,) counts -> (C,) weights of mean 1: w_c = C * p_c^-exponent / sum_k p_k^-exponent with p = counts / sum.

    A class that never occurs counts as if it occurred once, since it cannot be weighted by 1 / 0.
    """
    counts = class_counts.double().clamp(min=1)
    inverse = (counts / counts.sum()) ** -exponent
    return (len(counts) * inverse / inverse.sum()).float()


class GroupReweightedCrossEntropy(ClassificationLoss):
    """Softmax cross entropy in which rare classes weigh more; background weighs 1.

    Divided by the sum of the weights of the sampled labels (not by R). The weights are no part of the state dict:
    they belong to the data, and published checkpoints do not have them.
    """

    weights: Tensor

    def __init__(self, class_counts: Tensor, exponent: float = 0.8) -> None:
        super().__init__()
        weights = torch.cat((grw_weights(class_counts, exponent), torch.ones(1, device=class_counts.device)))
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar."""
        if len(labels) == 0:
            return logits.sum() * 0
        return F.cross_entropy(logits.float(), labels, weight=self.weights)
