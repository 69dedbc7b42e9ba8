"""One binary question per class instead of one choice among all: the common part of the sigmoid losses.

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext


def one_hot(labels: Tensor, columns: int) -> Tensor:
    """(R,) -> (R, columns) float; a label beyond the columns (background, where it has none) is a row of zeros."""
    return (labels[:, None] == torch.arange(columns, device=labels.device)).float()


def weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Binary cross entropy summed over all columns and rows and divided by the number of rows.

    logits, targets (R, K), weights broadcast to them -> scalar, in float32; 0 for R = 0.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return (loss * weights).sum() / max(1, len(logits))


class SigmoidLoss(ClassificationLoss):
    """Base of losses whose foreground scores are independent sigmoids; the background column is unused."""

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C) in [0, 1]."""
        return logits[:, :-1].sigmoid()


class SigmoidWithBackgroundLoss(SigmoidLoss):
    """Base of sigmoid losses that also train the background column: it then lowers every foreground score."""

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C): sigmoid(z_c) (1 - sigmoid(z_background))."""
        return logits[:, :-1].sigmoid() * (-logits[:, -1:]).sigmoid()


class SigmoidCrossEntropy(SigmoidLoss):
    """Every RoI is a positive of its class and a negative of all others; background RoIs are negatives of all."""

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar."""
        foreground = logits[:, :-1]
        return weighted_bce(foreground, one_hot(labels, foreground.shape[1]))
