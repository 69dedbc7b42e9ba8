"""Gumbel-optimised loss (GOL, https://arxiv.org/abs/2207.10936), alone and with DropLoss
(https://arxiv.org/abs/2104.06402).

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C and unused.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidLoss, one_hot


def gumbel_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of p = exp(-exp(-z)), z clamped to [-4, 10]; (R, C), (R, C) -> (R, C).

    -ln p is exp(-z), and ln(1 - p) is computed as ln(-expm1(-exp(-z))), which is exact where p rounds to 1.
    """
    decay = (-logits.float().clamp(-4, 10)).exp()
    return torch.where(targets > 0, decay, -(-torch.expm1(-decay)).log())


class GumbelLoss(SigmoidLoss):
    """Binary cross entropy of the Gumbel distribution: rare objects sit in its asymmetric tail.

    An entry is capped at `cap`. Set the classifier's bias to -2 at the start, where p is about 0.0006.
    """

    def __init__(self, cap: float = 20.0) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R."""
        foreground = logits[:, :-1]
        loss = gumbel_bce(foreground, one_hot(labels, foreground.shape[1])).clamp(max=self.cap)
        return loss.sum() / max(1, len(labels))

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C): exp(-exp(-z)), not clamped."""
        return (-(-logits[:, :-1]).exp()).exp()


class GumbelDropLoss(GumbelLoss):
    """The same without some negatives of rare classes, as released: no cap.

    Foreground RoIs give no negatives to classes that are in less than a `threshold` of the images. Background RoIs give
    each of theirs with probability equal to the rare share of the batch's foreground labels, and all if there is no
    foreground. `image_counts` (C,) are numbers of images.
    """

    is_rare: Tensor

    def __init__(
        self,
        image_counts: Tensor,
        num_images: int,
        threshold: float = 0.0011,
        uniform: Callable[[Tensor], Tensor] = torch.rand_like,
    ) -> None:
        super().__init__(cap=torch.inf)
        self.register_buffer("is_rare", image_counts.double() / num_images < threshold, persistent=False)
        self.uniform = uniform

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R."""
        foreground = logits[:, :-1]
        positives = one_hot(labels, len(self.is_rare))
        kept = 1 - self.dropped(positives).float() * (1 - positives)
        return (gumbel_bce(foreground, positives) * kept).sum() / max(1, len(labels))

    def dropped(self, positives: Tensor) -> Tensor:
        """(R, C) one-hot -> (R, C) bool: the negatives that are left out."""
        is_foreground = positives.sum(dim=1, keepdim=True) > 0
        per_class = positives.sum(dim=0)
        total = per_class.sum()
        rare_share = (per_class * self.is_rare).sum() / total.clamp(min=1)
        keep_below = torch.where(total > 0, rare_share, torch.inf)
        return self.is_rare & (is_foreground | (self.uniform(positives) > keep_below))
