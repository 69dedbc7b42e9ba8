"""Balanced softmax and its sigmoid form (BALMS, https://arxiv.org/abs/2007.10740).

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidLoss, one_hot, weighted_bce


class BalancedSoftmax(ClassificationLoss):
    """Cross entropy of z_c + ln n_c (equation 3): frequent classes must win without the help of their prior.

    Scores are the plain softmax of z. `background_count` stands in for the n of background; only its ratio to the
    class counts matters. With 1, foreground scores come out low by a factor of about n_c: use a score threshold of 1e-4
    or less. Classes without examples count once.
    """

    log_counts: Tensor

    def __init__(self, class_counts: Tensor, background_count: float = 1.0) -> None:
        super().__init__()
        counts = class_counts.float().clamp(min=1)
        background = counts.new_full((1,), math.log(background_count))
        self.register_buffer("log_counts", torch.cat((counts.log(), background)), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, the mean over all rows."""
        if len(labels) == 0:
            return logits.sum() * 0
        return F.cross_entropy(logits.float() + self.log_counts, labels)


class BalancedSigmoid(SigmoidLoss):
    """The form of the released detector: foreground RoIs see z_c - ln((1 - p_c) / p_c) with p_c = I_c / images.

    Background RoIs see z unchanged. `image_counts` (C,) are numbers of images.
    """

    log_odds: Tensor

    def __init__(self, image_counts: Tensor, num_images: int) -> None:
        super().__init__()
        fraction = (image_counts.double().clamp(min=1) / num_images).clamp(max=1 - 1e-6)
        self.register_buffer("log_odds", torch.logit(fraction).float(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R."""
        num_classes = len(self.log_odds)
        is_foreground = (labels < num_classes).float()[:, None]
        shifted = logits[:, :-1].float() + is_foreground * self.log_odds
        return weighted_bce(shifted, one_hot(labels, num_classes))
