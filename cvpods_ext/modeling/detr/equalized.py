"""Long-tail losses over queries: equalized focal loss, and focal loss with adjusted scores.

Shapes: R = queries of all images of one layer, C = classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.detr.losses import SigmoidFocal
from cvpods_ext.modeling.losses.sigmoid import one_hot
from cvpods_ext.modeling.losses.stateful import StatefulLoss


class EqualizedFocal(StatefulLoss, SigmoidFocal):
    """Focal loss whose exponent and weight rise with the imbalance of a class (https://arxiv.org/abs/2201.02593).

    gamma_c = gamma + s (1 - g_c), and a term weighs gamma_c / gamma (equations 3 to 5). g_c in [0, 1] is the ratio of
    positive to negative gradient magnitude of class c accumulated over the steps before this one, of all layers; 1
    where none has arrived. The accumulated gradients are part of the state dict.
    """

    statistics = ("positive_gradients", "negative_gradients")
    positive_gradients: Tensor
    negative_gradients: Tensor

    def __init__(self, num_classes: int, alpha: float = 0.25, gamma: float = 2.0, scale: float = 8.0) -> None:
        super().__init__()
        self.alpha, self.gamma, self.scale = alpha, gamma, scale
        self.register_buffer("positive_gradients", torch.zeros(num_classes))
        self.register_buffer("negative_gradients", torch.zeros(num_classes))

    def exponents(self) -> Tensor:
        """gamma_c (C,) at this point of training."""
        ratio = self.positive_gradients / self.negative_gradients.clamp(min=1e-10)
        ratio = torch.where(self.negative_gradients > 0, ratio, 1.0).clamp(max=1.0)
        return self.gamma + self.scale * (1 - ratio)

    def entries(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each row and class, (R, C) float32; in training mode the gradients are accumulated."""
        logits, targets = logits.float(), one_hot(labels, logits.shape[1])
        exponents = self.exponents()
        # of the right answer: log p and 1 - p
        signed = torch.where(targets > 0, logits, -logits)
        log_right, wrong = F.logsigmoid(signed), torch.sigmoid(-signed)
        weight = torch.where(targets > 0, self.alpha, 1 - self.alpha) * (exponents / self.gamma)
        power = wrong**exponents
        if self.training:
            self._accumulate_gradients(weight * power * (wrong - exponents * (1 - wrong) * log_right), targets)
        return -weight * power * log_right

    @torch.no_grad()
    def _accumulate_gradients(self, magnitude: Tensor, targets: Tensor) -> None:
        """|d loss / d logit| of every entry, summed over rows apart for positives and negatives."""
        positive = (magnitude * targets).sum(dim=0)
        self.accumulate("positive_gradients", positive)
        self.accumulate("negative_gradients", magnitude.sum(dim=0) - positive)


class AdjustedFocal(SigmoidFocal):
    """Focal loss in training; scores are those of z + `shift` (C,), such as `posthoc.logit_adjustment` of counts.

    The mean of the shift is taken out, which changes no order. Within a class the order of detections stays as well, so
    that AP changes only by which detections of an image are kept.
    """

    shift: Tensor

    def __init__(self, shift: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(alpha, gamma)
        self.register_buffer("shift", (shift - shift.mean()).float(), persistent=False)

    def scores(self, logits: Tensor) -> Tensor:
        """(..., C) -> (..., C) in [0, 1]."""
        return super().scores(logits.float() + self.shift)
