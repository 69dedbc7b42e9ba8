"""Box classifiers: pooled feature -> class logits, background last.

Shapes: R = RoIs in the batch, D = feature width, C = foreground classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.layers import init_normal


class LinearClassifier(nn.Linear):
    """One weight vector and one bias per class; `extra_logits` are further columns after background."""

    def __init__(self, in_features: int, num_classes: int, *, extra_logits: int = 0) -> None:
        super().__init__(in_features, num_classes + 1 + extra_logits)
        self.num_classes = num_classes
        init_normal(self, std=0.01)


class CosineClassifier(nn.Module):
    """Logits are scaled cosine similarities, so a frequent class cannot win by a longer weight vector.

    Background is an ordinary row, there is no bias. `scale` is learned, shape (1,), unless `learn_scale` is off, when
    it is a constant outside the state dict.
    """

    scale: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        scale: float = 20.0,
        learn_scale: bool = True,
        extra_logits: int = 0,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.empty(num_classes + 1 + extra_logits, in_features))
        nn.init.normal_(self.weight, std=0.01)
        if learn_scale:
            self.scale = nn.Parameter(torch.full((1,), scale))
        else:
            self.register_buffer("scale", torch.full((1,), scale), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(R, D) -> (R, C + 1), each within [-scale, scale]; in float32 also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            directions = F.normalize(features.to(self.weight.dtype), dim=1)
            return self.scale * F.linear(directions, F.normalize(self.weight, dim=1))
