"""Classification losses over queries: no background column, most rows are background, and the sum is normalised by the
number of objects.

Shapes: R = queries of all images of one layer, C = classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext
from cvpods_ext.modeling.losses.federated import FederatedLoss, Noise, gumbel_noise, verified_classes
from cvpods_ext.modeling.losses.sigmoid import one_hot


class QueryLoss(ClassificationLoss):
    """Base of these losses: (R, C) logits, (R,) labels in [0, C] where C is background -> the sum over the rows.

    `context` says of which image a row is.
    """

    def scores(self, logits: Tensor) -> Tensor:
        """(..., C) -> (..., C) in [0, 1]."""
        return logits.sigmoid()


class SigmoidFocal(QueryLoss):
    """Focal loss (https://arxiv.org/abs/1708.02002) over all classes of all queries."""

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C), (R,) -> scalar."""
        return (self.entries(logits, labels) * self.asked(labels, logits.shape[1], context)).sum()

    def entries(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each row and class, (R, C) float32."""
        logits = logits.float()
        return sigmoid_focal_loss(logits, one_hot(labels, logits.shape[1]), self.alpha, self.gamma)

    def asked(self, labels: Tensor, num_classes: int, context: LossContext | None) -> Tensor:
        """Weights in [0, 1] that broadcast to (R, C): of which classes it is known whether they are there."""
        return labels.new_ones((), dtype=torch.float32)


class FederatedFocal(SigmoidFocal):
    """Focal loss over the classes of the batch and a few drawn ones, as `FederatedLoss` draws them for each layer."""

    def __init__(
        self, image_counts: Tensor, num_sampled: int = 50, power: float = 0.5, noise: Noise = gumbel_noise
    ) -> None:
        super().__init__()
        self.federated = FederatedLoss(image_counts, num_sampled, power, noise)

    def asked(self, labels: Tensor, num_classes: int, context: LossContext | None) -> Tensor:
        """(C,)."""
        return self.federated.classes(labels).float()


class VerifiedFocal(SigmoidFocal):
    """Focal loss over what the annotators of each image verified, see `VerifiedFederatedLoss`."""

    def asked(self, labels: Tensor, num_classes: int, context: LossContext | None) -> Tensor:
        """(R, C)."""
        assert context is not None, "the verified classes are in the targets of the batch"
        verified = verified_classes(context.targets, num_classes, labels.device)[context.image_of_roi]
        return torch.maximum(verified.float(), one_hot(labels, num_classes))
