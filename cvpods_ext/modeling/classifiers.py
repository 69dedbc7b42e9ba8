"""Box classifiers: pooled feature -> class logits, background last.

Shapes: R = RoIs in the batch, D = feature width, C = foreground classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.calibration import Calibration
from cvpods_ext.modeling.layers import init_normal


class LinearClassifier(nn.Linear):
    """One weight vector and one bias per class; `extra_logits` are further columns after background."""

    def __init__(self, in_features: int, num_classes: int, *, extra_logits: int = 0) -> None:
        super().__init__(in_features, num_classes + 1 + extra_logits)
        self.num_classes = num_classes
        init_normal(self, std=0.01)


class ScaledCosine(nn.Module):
    """Cosine similarities of features and `rows` weight vectors times a learned `scale`, shape (1,); no bias."""

    def __init__(self, in_features: int, rows: int, *, scale: float = 20.0) -> None:
        super().__init__()
        self.in_features = in_features
        self.weight = nn.Parameter(torch.empty(rows, in_features))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = nn.Parameter(torch.full((1,), scale))

    def forward(self, features: Tensor) -> Tensor:
        """(R, D) -> (R, rows), each within [-scale, scale]; in float32 also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            directions = F.normalize(features.to(self.weight.dtype), dim=1)
            return self.scale * F.linear(directions, F.normalize(self.weight, dim=1))


class CosineClassifier(ScaledCosine):
    """Logits are scaled cosine similarities, so a frequent class cannot win by a longer weight vector.

    Background is an ordinary row: the classifier of DisAlign's folders (https://arxiv.org/abs/2103.16370). That of
    mmdetection is `NormalizedClassifier`.
    """

    def __init__(self, in_features: int, num_classes: int, *, scale: float = 20.0, extra_logits: int = 0) -> None:
        super().__init__(in_features, num_classes + 1 + extra_logits, scale=scale)
        self.num_classes = num_classes


class NormalizedClassifier(nn.Linear):
    """Cosine similarities times a fixed scale plus a bias per class: NormedLinear of mmdetection, which the released
    configs of Seesaw and ECM train.

    A norm is divided by after 1e-6 was added to it, as there.
    """

    def __init__(self, in_features: int, num_classes: int, *, scale: float = 20.0, extra_logits: int = 0) -> None:
        super().__init__(in_features, num_classes + 1 + extra_logits)
        self.num_classes = num_classes
        self.scale = scale
        init_normal(self, std=0.01)

    def forward(self, input: Tensor) -> Tensor:
        """(R, D) -> (R, C + 1), each within `scale` of its bias; in float32 also under autocast."""
        with torch.autocast(input.device.type, enabled=False):
            directions = normalized(input.to(self.weight.dtype), dim=1)
            return F.linear(self.scale * directions, normalized(self.weight, dim=1), self.bias)


def normalized(vectors: Tensor, dim: int) -> Tensor:
    """Vectors along `dim` divided by their length plus 1e-6, the rule of mmdetection's normalised layers."""
    return vectors / (vectors.norm(dim=dim, keepdim=True) + 1e-6)


class FederatedClassifier(Calibration):
    """A linear classifier; its published files also hold the weights by which the federated loss draws classes.

    They are computed from the image counts (C,) and kept only so that files fit in both directions.
    """

    fed_loss_cls_weights: Tensor

    def __init__(self, in_features: int, image_counts: Tensor, power: float = 0.5) -> None:
        super().__init__(LinearClassifier(in_features, len(image_counts)))
        self.register_buffer("fed_loss_cls_weights", image_counts.float() ** power)
