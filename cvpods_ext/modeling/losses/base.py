"""What a box classification loss is: a scalar in training, and the reading of its logits as scores at test time.

Shapes: R = sampled RoIs of the batch, C = foreground classes; background is column C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from cvpods_ext.structures import Targets


@dataclass(frozen=True)
class LossContext:
    """What a loss may need beside logits and labels.

    image_of_roi (R,) int64 indexes `targets`, whose negative and not-exhaustive labels say what was verified in that
    image.
    """

    image_of_roi: Tensor
    targets: Sequence[Targets]


class ClassificationLoss(nn.Module):
    """Base of the losses in this folder: softmax scores, background last and dropped.

    A loss that trains logits of another meaning (sigmoids, an objectness branch) overrides `scores` as well, so that
    training and test cannot disagree.
    """

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1) logits, (R,) labels in [0, C] -> scalar; 0 and connected to the graph if R is 0."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C) in [0, 1]."""
        return logits.softmax(dim=1)[:, :-1]
