"""Seesaw loss (https://arxiv.org/abs/2008.10032): rebalance each pair of classes by their counts and mistakes.

Shapes: R = sampled RoIs of the batch, F = foreground rows, C = foreground classes. Column C is background, column
C + 1 is object: the two form a softmax of their own beside the C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.stateful import StatefulLoss


class SeesawLoss(StatefulLoss):
    """Cross entropy of z_j + ln S_ij over the classes for foreground RoIs of class i, plus one of object against not.

    S_ij = min(1, N_j / N_i)^p * max(1, s_j / s_i)^q (equations 4 to 6): mitigation by the numbers N of RoIs seen so
    far, those at hand included, compensation by the softmax s, through which no gradient flows. Both parts are divided
    by R. N is part of the state dict; it holds the RoIs of all processes in the steps before. Of the present step a
    forward pass adds its own RoIs, as the released code does. The classifier needs `extra_logits` more columns.
    """

    extra_logits = 1
    statistics = ("seen",)
    seen: Tensor

    def __init__(self, num_classes: int, p: float = 0.8, q: float = 2.0, smallest_score: float = 0.01) -> None:
        super().__init__()
        self.p, self.q, self.smallest_score = p, q, smallest_score
        self.num_classes = num_classes
        self.register_buffer("seen", torch.zeros(num_classes))

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 2), (R,) -> scalar; in training mode the labels are counted."""
        logits = logits.float()
        classes, objectness = logits[:, : self.num_classes], logits[:, self.num_classes :]
        is_object = labels < self.num_classes
        seen = self.seen
        if self.training:
            counts = torch.zeros(self.num_classes + 1, device=labels.device)
            counts.scatter_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype))
            self.accumulate("seen", counts[:-1])
            seen = seen + counts[:-1]
        own = torch.where(is_object, labels, 0)
        seesawed = classes + self.log_factors(classes.detach(), own, seen)
        loss = F.cross_entropy(seesawed, own, reduction="none") * is_object
        loss = loss + F.cross_entropy(objectness, is_object.long(), reduction="none")
        return loss.sum() / max(1, len(labels))

    def log_factors(self, classes: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
        """ln S of every row: (F, C) class logits without gradient, (F,) labels in [0, C), (C,) counts N -> (F, C), 0 at
        the label.
        """
        log_seen = seen.clamp(min=1).log()
        mitigation = self.p * (log_seen - log_seen[labels][:, None]).clamp(max=0)
        log_scores = classes.log_softmax(dim=1)
        own = log_scores.gather(1, labels[:, None])
        own = own.clamp(min=math.log(self.smallest_score))
        compensation = self.q * (log_scores - own).clamp(min=0)
        factors = mitigation + compensation
        return factors.scatter(1, labels[:, None], 0.0)

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 2) -> (R, C): softmax over the classes times the probability of an object."""
        objectness = logits[:, self.num_classes :].softmax(dim=1)[:, 1:]
        return logits[:, : self.num_classes].softmax(dim=1) * objectness
