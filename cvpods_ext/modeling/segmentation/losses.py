"""Losses over pixels: plain cross entropy as published, and ways to give rare classes a chance.

Shapes: N = crops, K = classes, H, W = rows and columns of the labels, P = labelled pixels. Labels are int64 in [0, K),
or IGNORE.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.grw import grw_weights
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.structures.segmentation import IGNORE


class PixelCrossEntropy(nn.Module):
    """Cross entropy, averaged over all pixels: one without ground truth adds nothing, but counts in the mean.

    So a crop that is mostly unlabelled weighs little; the published models were trained this way.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, K, H, W), (N, H, W) -> scalar; 0 and connected to the graph if no pixel has a label."""
        total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
        return total / labels.numel()


class WeightedPixelCrossEntropy(nn.Module):
    """Cross entropy in which pixels of rare classes weigh more (GRW of https://arxiv.org/abs/2103.16370).

    Weights are the pixel counts of the classes to the power -`exponent`, of mean 1 over the classes; the mean is
    over labelled pixels by weight.
    """

    weights: Tensor

    def __init__(self, pixel_counts: Tensor, exponent: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("weights", grw_weights(pixel_counts, exponent), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, K, H, W), (N, H, W) -> scalar; 0 and connected to the graph if no pixel has a label."""
        total = F.cross_entropy(logits.float(), labels, self.weights, ignore_index=IGNORE, reduction="sum")
        labelled = labels[labels != IGNORE]
        return total / self.weights[labelled].sum().clamp(min=1e-12)


class LogitAdjustedPixelCrossEntropy(PixelCrossEntropy):
    """Cross entropy of z_k + tau ln p_k (https://arxiv.org/abs/2007.07314): frequent classes win without their prior.

    p are the pixel shares of the training set; a class without pixels counts as one. Predictions use z alone.
    """

    log_prior: Tensor

    def __init__(self, pixel_counts: Tensor, tau: float = 1.0) -> None:
        super().__init__()
        counts = pixel_counts.double().clamp(min=1)
        self.register_buffer("log_prior", (tau * (counts / counts.sum()).log()).float(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, K, H, W), (N, H, W) -> scalar."""
        return super().forward(logits.float() + self.log_prior[:, None, None], labels)


class SeesawPixelCrossEntropy(SeesawLoss):
    """Seesaw loss (https://arxiv.org/abs/2008.10032) on pixels: classes alone, without the part for objects.

    N are labelled pixels of the training so far, the crops at hand included. The mean is over all pixels, as in
    `PixelCrossEntropy`.
    """

    extra_logits = 0

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(N, K, H, W), (N, H, W) -> scalar; in training mode the labels are counted."""
        rows, own = labelled_rows(logits, labels)
        seen = self.seen
        if self.training:
            counts = torch.bincount(own, minlength=self.num_classes).to(seen.dtype)
            self.accumulate("seen", counts)
            seen = seen + counts
        seesawed = rows + self.log_factors(rows.detach(), own, seen)
        return F.cross_entropy(seesawed, own, reduction="sum") / labels.numel()

    def scores(self, logits: Tensor) -> Tensor:
        """(R, K) -> (R, K) in [0, 1]."""
        return logits.softmax(dim=1)


def labelled_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K, H, W), (N, H, W) -> float32 (P, K) and (P,) of the pixels that have a label."""
    labelled = labels != IGNORE
    return logits.float().movedim(1, -1)[labelled], labels[labelled]


@torch.no_grad()
def pixel_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, K, H, W), (N, H, W) -> percentage of labelled pixels that are right; 100 where none is labelled."""
    labelled = labels != IGNORE
    right = (logits.argmax(dim=1) == labels) & labelled
    return torch.where(labelled.any(), 100 * right.sum() / labelled.sum().clamp(min=1), 100.0)
