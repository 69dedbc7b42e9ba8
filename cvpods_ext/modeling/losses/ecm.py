"""Effective class-margin loss (ECM, https://arxiv.org/abs/2301.09724): margins that bound the ranking error per class.

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidWithBackgroundLoss, one_hot, weighted_bce


class EffectiveClassMarginLoss(SigmoidWithBackgroundLoss):
    """Sigmoid cross entropy of 2 z_c + m_c with class weights, both from the share of positives; as released.

    With n_c the instance count of a class, background_ratio times their sum for background, S their total and
    a_c = (S - n_c) / n_c: weight a_c ln(1 + 1 / a_c), margin m_c = ln(n_c / (S - n_c)) / 4. The released form of two
    exponentials is rewritten so that it cannot overflow; its value is the same. Scores use z without factor and margin.
    Classes without examples count once. Pair it with `NormalizedClassifier`, a long warm-up and gradient clipping.
    """

    weights: Tensor
    margins: Tensor

    def __init__(self, instance_counts: Tensor, background_ratio: float = 6.3313) -> None:
        super().__init__()
        counts = instance_counts.double().clamp(min=1)
        counts = torch.cat((counts, background_ratio * counts.sum(dim=0, keepdim=True)))
        self.register_buffer("weights", self.class_weights(counts), persistent=False)
        self.register_buffer("margins", (counts / (counts.sum() - counts)).log().float() / 4, persistent=False)

    def class_weights(self, counts: Tensor) -> Tensor:
        """(C + 1,) float64 counts -> (C + 1,) weights, in float32 as the released code computes them.

        There 1 + 1 / a_c has lost most digits of 1 / a_c: on LVIS the weights lie between 0.925 and 1.110, where exact
        ones are within 0.003 of 1 (0.315 of background both times).
        """
        counts = counts.float()
        odds = (counts.sum() - counts) / counts
        return odds * (1 + 1 / odds).log()

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R."""
        return weighted_bce(2 * logits.float() + self.margins, one_hot(labels, logits.shape[1]), self.weights)


class ExactEffectiveClassMarginLoss(EffectiveClassMarginLoss):
    """The same with the weights of the paper's formula, free of rounding; its numbers are no published ones."""

    def class_weights(self, counts: Tensor) -> Tensor:
        """(C + 1,) float64 counts -> (C + 1,) weights."""
        odds = (counts.sum() - counts) / counts
        return (odds * torch.log1p(1 / odds)).float()
