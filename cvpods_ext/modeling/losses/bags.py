"""Balanced group softmax (BAGS, https://arxiv.org/abs/2006.10408): classes compete only with classes of like count.

Shapes: R = sampled RoIs of the batch, C = foreground classes, G = groups with at least one class. Columns: C classes,
background (column C), foreground (C + 1), then one "others" per group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext


def random_order(like: Tensor) -> Tensor:
    """Uniform noise whose order picks the "others" that are kept."""
    return torch.rand_like(like)


class BalancedGroupSoftmax(ClassificationLoss):
    """One softmax per group of classes with similar instance counts, each with a logit for all other RoIs.

    Groups are [0, 10), [10, 100), [100, 1000) and from 1000 instances; a further group tells background from
    foreground. In a class group all members count and at most `others_ratio` times as many others, drawn anew each
    step; a group without members in the batch gives 0. Each group is averaged over its own kept rows, and the groups
    are summed. Meant for a second stage: new classifier, the rest frozen, uniform sampling.
    """

    def __init__(
        self,
        instance_counts: Tensor,
        edges: Sequence[float] = (10, 100, 1000),
        others_ratio: float = 8.0,
        noise: Callable[[Tensor], Tensor] = random_order,
    ) -> None:
        super().__init__()
        self.num_classes = len(instance_counts)
        self.others_ratio = others_ratio
        self.noise = noise
        members = _groups(instance_counts, edges)
        self.num_groups = len(members)
        for g, classes in enumerate(members):
            others = torch.tensor([self.num_classes + 2 + g], device="cpu")
            position = torch.full((self.num_classes + 1,), len(classes), device="cpu")  # "others" is last in a group
            position[classes] = torch.arange(len(classes), device="cpu")
            self.register_buffer(f"columns{g}", torch.cat((classes, others)), persistent=False)
            self.register_buffer(f"position{g}", position, persistent=False)

    @property
    def extra_logits(self) -> int:
        """Columns that the classifier needs after background."""
        return 1 + self.num_groups

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 2 + G), (R,) -> scalar."""
        if len(labels) == 0:
            return logits.sum() * 0
        logits = logits.float()
        is_foreground = (labels < self.num_classes).long()
        loss = F.cross_entropy(logits[:, self.num_classes : self.num_classes + 2], is_foreground)
        for g in range(self.num_groups):
            columns, position = self.get_buffer(f"columns{g}"), self.get_buffer(f"position{g}")
            own = position[labels]
            kept = self._kept(own < len(columns) - 1)
            group_loss = F.cross_entropy(logits[:, columns], own, reduction="none")
            loss = loss + (group_loss * kept).sum() / kept.sum().clamp(min=1)
        return loss

    def _kept(self, is_member: Tensor) -> Tensor:
        """(R,) bool -> (R,) bool: all members, and others_ratio as many others if there are so many."""
        noise = torch.where(is_member, torch.inf, self.noise(is_member.float()))
        rank = noise.argsort().argsort()
        return is_member | (rank < (is_member.sum() * self.others_ratio).floor())

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 2 + G) -> (R, C): softmax within the class's group times the probability of foreground."""
        foreground = logits[:, self.num_classes : self.num_classes + 2].softmax(dim=1)[:, 1:]
        scores = torch.zeros_like(logits[:, : self.num_classes])
        for g in range(self.num_groups):
            columns = self.get_buffer(f"columns{g}")
            scores[:, columns[:-1]] = logits[:, columns].softmax(dim=1)[:, :-1]
        return scores * foreground


def _groups(counts: Tensor, edges: Sequence[float]) -> list[Tensor]:
    """The classes of every group that has any, on the CPU also when a model is built without memory."""
    counts = counts.double().cpu()
    group = torch.bucketize(counts, torch.tensor(edges, dtype=torch.float64, device="cpu"), right=True)
    members = [(group == g).nonzero()[:, 0] for g in range(len(edges) + 1)]
    return [classes for classes in members if len(classes)]
