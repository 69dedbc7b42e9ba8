"""Equalization loss v2 (https://arxiv.org/abs/2012.08548): balance the gradients that a class has received so far.

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidWithBackgroundLoss, one_hot, weighted_bce
from cvpods_ext.modeling.losses.stateful import StatefulLoss

_NO_GRADIENT_YET = 100.0  # the ratio of a class that has received nothing: its weights are then 1


class EqualizationLossV2(StatefulLoss, SigmoidWithBackgroundLoss):
    """Sigmoid cross entropy whose negatives weigh f(g_c) and positives 1 + alpha (1 - f(g_c)) (equations 4 to 6).

    g_c is the ratio of accumulated positive to negative gradient magnitude of class c, after weighting, over the steps
    before this one; f(g) = 1 / (1 + exp(-gamma (g - mu))). The background column weighs 1. The accumulated gradients
    are part of the state dict: a run that continues without them starts its balance over.
    """

    statistics = ("positive_gradients", "negative_gradients")
    positive_gradients: Tensor
    negative_gradients: Tensor

    def __init__(self, num_classes: int, gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0) -> None:
        super().__init__()
        self.gamma, self.mu, self.alpha = gamma, mu, alpha
        self.register_buffer("positive_gradients", torch.zeros(num_classes))
        self.register_buffer("negative_gradients", torch.zeros(num_classes))

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weights (C + 1,) of positives and of negatives at this point of training."""
        ratio = self.positive_gradients / (self.negative_gradients + 1e-10)
        ratio = torch.where(self.negative_gradients > 0, ratio, _NO_GRADIENT_YET)
        negative = torch.sigmoid(self.gamma * (ratio - self.mu))
        negative = torch.cat((negative, negative.new_ones(1)))
        return 1 + self.alpha * (1 - negative), negative

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R; in training mode the gradients are accumulated."""
        targets = one_hot(labels, logits.shape[1])
        positive, negative = self.weights()
        weights = torch.where(targets > 0, positive, negative)
        if self.training:
            self._accumulate_gradients(logits, targets, weights)
        return weighted_bce(logits, targets, weights)

    @torch.no_grad()
    def _accumulate_gradients(self, logits: Tensor, targets: Tensor, weights: Tensor) -> None:
        """What this batch does to each class: |sigmoid(z) - y|, weighted, summed over rows."""
        magnitude = ((logits.float().sigmoid() - targets).abs() * weights)[:, :-1]
        positive = (magnitude * targets[:, :-1]).sum(dim=0)
        self.accumulate("positive_gradients", positive)
        self.accumulate("negative_gradients", magnitude.sum(dim=0) - positive)
