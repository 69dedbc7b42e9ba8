"""Gumbel-optimised loss (GOL, https://arxiv.org/abs/2207.10936), alone and with DropLoss
(https://arxiv.org/abs/2104.06402).

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C, which DropLoss leaves unused.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidLoss, one_hot


def gumbel_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of p = exp(-exp(-z)), z clamped to [-4, 10]; (R, K), (R, K) -> (R, K).

    As in the released code it goes through p in float32. The gradient of binary cross entropy divides by p (1 - p),
    but never by less than 1e-12: that of a positive grows as exp(-z) up to 27.6 at z = -3.32 and is nearly 0 below.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probability = (-(-logits.float().clamp(-4, 10)).exp()).exp()
        # PyTorch refuses NaN here, on a GPU by ending the process: it goes around.
        entry = F.binary_cross_entropy(probability.nan_to_num(), targets, reduction="none")
    return torch.where(probability.isnan(), probability, entry)


def gumbel_classifier(in_features: int, num_classes: int) -> LinearClassifier:
    """A linear classifier that starts as in the released configs: weights 0.001 and bias -2, where p is 0.0006."""
    classifier = LinearClassifier(in_features, num_classes)
    nn.init.constant_(classifier.weight, 0.001)
    nn.init.constant_(classifier.bias, -2.0)
    return classifier


class GumbelLoss(SigmoidLoss):
    """Binary cross entropy of the Gumbel distribution, whose asymmetric tail suits rare objects: C + 1 columns,
    background among them, which the scores leave out.

    The loss of the whole batch is limited to `largest`; above it no gradient flows. Start with `gumbel_classifier`.
    """

    def __init__(self, largest: float = 20.0) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R."""
        loss = gumbel_bce(logits, one_hot(labels, logits.shape[1])).sum()
        return (loss / max(1, len(labels))).clamp(max=self.largest)

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C): exp(-exp(-z)), not clamped."""
        return (-(-logits[:, :-1]).exp()).exp()


class GumbelDropLoss(GumbelLoss):
    """The C foreground columns without some negatives of rare classes, as released; the loss is not limited.

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
        super().__init__(largest=torch.inf)
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
