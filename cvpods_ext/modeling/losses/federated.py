"""Federated losses: LVIS does not say of every image whether a class is absent, so the loss must not cover every class.

Shapes: R = sampled RoIs of the batch, C = foreground classes, N = images; background is column C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidLoss, one_hot, weighted_bce
from cvpods_ext.structures import Targets

Noise = Callable[[Tensor], Tensor]


def gumbel_noise(like: Tensor) -> Tensor:
    """Gumbel noise: the largest k of log w + noise are a draw of k without replacement in proportion to w."""
    return -torch.empty_like(like).exponential_().log()


class FederatedLoss(SigmoidLoss):
    """Sigmoid cross entropy over the classes of the batch and a few drawn ones (Probabilistic two-stage detection,
    https://arxiv.org/abs/2103.07461, appendix; as in detectron2 and EVA-02).

    The distinct labels of the batch, background counted as one of them, are filled up to `num_sampled` with classes
    drawn without replacement in proportion to image_count ** power; nothing is drawn if there are as many already.
    Each process and each cascade stage draws for itself. Nothing waits for the device.
    """

    log_weights: Tensor

    def __init__(
        self, image_counts: Tensor, num_sampled: int = 50, power: float = 0.5, noise: Noise = gumbel_noise
    ) -> None:
        super().__init__()
        self.register_buffer("log_weights", power * image_counts.float().log(), persistent=False)
        self.num_sampled = num_sampled
        self.noise = noise

    def classes(self, labels: Tensor) -> Tensor:
        """(R,) -> (C,) bool: the classes that the loss of this batch covers."""
        num_classes = len(self.log_weights)
        present = torch.zeros(num_classes + 1, dtype=torch.bool, device=labels.device)
        present.scatter_(0, labels, True)
        priority = self.log_weights + self.noise(self.log_weights)
        priority = torch.cat((priority, priority.new_full((1,), -torch.inf)))  # background is never drawn
        priority = torch.where(present, torch.inf, priority)
        best = priority.topk(min(self.num_sampled, num_classes + 1))
        drawn = torch.zeros_like(present).scatter_(0, best.indices, best.values > -torch.inf)
        return (present | drawn)[:num_classes]

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar, divided by R whatever the number of covered classes."""
        foreground = logits[:, :-1]
        return weighted_bce(foreground, one_hot(labels, foreground.shape[1]), self.classes(labels))


class VerifiedFederatedLoss(SigmoidLoss):
    """Sigmoid cross entropy over what the annotators of each image verified (LVIS, https://arxiv.org/abs/1908.03195).

    A RoI is a positive of its own class. It is a negative of the other classes that are annotated in its image or
    listed as absent from it, except those listed as not exhaustively annotated; all other classes are left out. Data
    without lists of negatives (COCO) gives few negatives: use SigmoidCrossEntropy there.
    """

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,), the images of the RoIs and their targets -> scalar, divided by R."""
        assert context is not None, "the verified classes are in the targets of the batch"
        foreground = logits[:, :-1]
        positives = one_hot(labels, foreground.shape[1])
        covered = verified_classes(context.targets, foreground.shape[1], logits.device)[context.image_of_roi]
        return weighted_bce(foreground, positives, torch.maximum(covered.float(), positives))


def verified_classes(targets: Sequence[Targets], num_classes: int, device: torch.device) -> Tensor:
    """(N, C) bool: where a RoI of another class is certainly a negative."""
    annotated = _mark([one.labels for one in targets], num_classes, device)
    absent = _mark([one.negative_labels for one in targets], num_classes, device)
    incomplete = _mark([one.not_exhaustive_labels for one in targets], num_classes, device)
    return (annotated | absent) & ~incomplete


def _mark(labels: Sequence[Tensor], num_classes: int, device: torch.device) -> Tensor:
    """Lists of labels, one per image -> (N, C) bool; the lengths are known on the host, so nothing waits."""
    marked = torch.zeros(len(labels) * num_classes, dtype=torch.bool, device=device)
    places = [one.to(device) + row * num_classes for row, one in enumerate(labels)]
    return marked.index_fill_(0, torch.cat(places), True).view(-1, num_classes)
