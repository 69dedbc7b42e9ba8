"""Effective class-margin loss (ECM, https://arxiv.org/abs/2301.09724): margins that bound the ranking error per class.

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidWithBackgroundLoss, one_hot, weighted_bce


class EffectiveClassMarginLoss(SigmoidWithBackgroundLoss):
    """Sigmoid cross entropy of 2 z_c + m_c with class weights, both from the share of positives.

    With n_c the image count of a class, background_ratio times their sum for background, S their total and
    a_c = (S - n_c) / n_c: weight a_c ln(1 + 1 / a_c), margin m_c = ln(n_c / (S - n_c)) / 4. This is the released form
    of two exponentials, rewritten so that it cannot overflow. Scores use z without factor and margin. On LVIS every
    foreground weight is within 4e-4 of 1; what acts is the margin and a background weight of 0.315. Classes without
    examples count once. Pair it with a cosine classifier of fixed scale 20, a long warm-up and gradient clipping.
    """

    weights: Tensor
    margins: Tensor

    def __init__(self, image_counts: Tensor, background_ratio: float = 6.3313) -> None:
        super().__init__()
        counts = image_counts.double().clamp(min=1)
        counts = torch.cat((counts, background_ratio * counts.sum(dim=0, keepdim=True)))
        odds = (counts.sum() - counts) / counts
        self.register_buffer("weights", (odds * torch.log1p(1 / odds)).float(), persistent=False)
        self.register_buffer("margins", (-odds.log() / 4).float(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R."""
        return weighted_bce(2 * logits.float() + self.margins, one_hot(labels, logits.shape[1]), self.weights)
