"""Equalization loss (https://arxiv.org/abs/2003.05176): frequent classes do not push rare ones down.

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

from torch import Tensor

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidLoss, one_hot, weighted_bce


class EqualizationLoss(SigmoidLoss):
    """Sigmoid cross entropy without the negatives that foreground RoIs of other classes give to rare classes.

    The weight of an entry is 1 - E(r) T(f_c) (1 - y) (equations 3 and 4): E is 1 for a foreground RoI, T is 1 where the
    class is in less than a `threshold` of the images. Background RoIs stay negatives of every class.
    `image_counts` (C,) are numbers of images.
    """

    is_rare: Tensor

    def __init__(self, image_counts: Tensor, num_images: int, threshold: float = 0.00177) -> None:
        super().__init__()
        self.register_buffer("is_rare", image_counts.double() / num_images < threshold, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R."""
        positives = one_hot(labels, len(self.is_rare))
        is_foreground = (labels < len(self.is_rare))[:, None]
        spared = (is_foreground & self.is_rare).float() * (1 - positives)
        return weighted_bce(logits[:, :-1], positives, 1 - spared)
