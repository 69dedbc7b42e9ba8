"""Mixtures of two images: mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899).

The draws come from torch's generator, which a training step seeds, so a resumed run repeats them.
Shapes: B = images, K = classes, S = side of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2


class Mixing(nn.Module):
    """One of the two, drawn for every batch; an alpha of 0 is off. Image i is mixed with image i - 1."""

    def __init__(self, num_classes: int, *, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        super().__init__()
        makers = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        with torch.device("cpu"):  # their distributions check values, which tensors on the meta device do not have
            self.kinds = [maker(alpha=alpha, num_classes=num_classes) for maker, alpha in makers if alpha > 0]
        self.choose = v2.RandomChoice(self.kinds) if self.kinds else None

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) float, (B,) int64 -> mixed images, and shares of classes (B, K); as they are if it is off."""
        if self.choose is None:
            return images, labels
        mixed, shares = self.choose(images, labels)
        return mixed, shares
