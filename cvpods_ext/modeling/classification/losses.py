"""Losses of image classification: over labels or mixtures of them, and the long-tail losses of detection.

Shapes: B = images, K = classes. Targets are labels (B,) int64, or shares of classes (B, K) that add up to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.losses.base import ClassificationLoss

ABSENT = -1e4  # a logit whose softmax is zero in float32; infinity would give NaN where a loss multiplies by 0


class ImageLoss(nn.Module):
    """Base: a scalar in training, and the reading of its logits as scores at test time."""

    takes_mixtures = True
    smoothing = 0.0

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K), (B,) or (B, K) -> scalar."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """(B, K) -> (B, K) in [0, 1]."""
        return logits.float().softmax(dim=1)


class SmoothedCrossEntropy(ImageLoss):
    """Cross entropy with targets (1 - smoothing) y + smoothing / K, whether y is one class or a mixture."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K), (B,) or (B, K) -> scalar, the mean over images."""
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.smoothing)


class LogitAdjusted(SmoothedCrossEntropy):
    """Cross entropy in training; scores are those of z + `shift` (K,), such as `posthoc.logit_adjustment` of counts."""

    shift: Tensor

    def __init__(self, shift: Tensor, smoothing: float = 0.0) -> None:
        super().__init__(smoothing)
        self.register_buffer("shift", shift.float(), persistent=False)

    def scores(self, logits: Tensor) -> Tensor:
        """(B, K) -> (B, K) in [0, 1]."""
        return super().scores(logits.float() + self.shift)


class WithoutBackground(ImageLoss):
    """A loss of box classification on images: background becomes a class that no image has and no logit favours.

    The softmax over K classes and such a background equals the softmax over the K classes. Learns from labels only.
    """

    takes_mixtures = False

    def __init__(self, loss: ClassificationLoss) -> None:
        super().__init__()
        if extra := getattr(loss, "extra_logits", 0):
            raise ConfigError(
                f"{type(loss).__name__} reads {extra} logits beside the classes (groups or an objectness), which an "
                "image classifier does not have"
            )
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K), (B,) -> scalar."""
        return self.loss(self._with_background(logits), targets)

    def scores(self, logits: Tensor) -> Tensor:
        """(B, K) -> (B, K) in [0, 1]."""
        return self.loss.scores(self._with_background(logits))

    @staticmethod
    def _with_background(logits: Tensor) -> Tensor:
        return torch.cat((logits.float(), logits.new_full((len(logits), 1), ABSENT, dtype=torch.float32)), dim=1)
