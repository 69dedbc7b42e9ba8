"""From a pooled box to class logits and box deltas (Fast R-CNN, https://arxiv.org/abs/1504.08083).

Shapes: R = RoIs of the batch, D = feature width, C = foreground classes, B = 1 (class-agnostic) or C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.calibration import Calibration
from cvpods_ext.modeling.detection.box_coding import BoxCoder
from cvpods_ext.modeling.detection.pooling import RoIPooler
from cvpods_ext.modeling.layers import Conv2d, init_msra, init_normal, init_xavier


class BoxHead(nn.Module):
    """Pools a box, then convolutions `conv1`... and fully connected layers `fc1`..., each with a ReLU."""

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        fc: Sequence[int] = (1024, 1024),
        convs: Sequence[int] = (),
        norm: str = "",
        resolution: int = 7,
    ) -> None:
        super().__init__()
        self.pooler = RoIPooler(resolution, strides)
        self.num_convs, self.num_fc = len(convs), len(fc)
        for i, width in enumerate(convs):
            self.add_module(f"conv{i + 1}", Conv2d(channels, width, 3, norm=norm, relu=True))
            init_msra(self.get_submodule(f"conv{i + 1}"))
            channels = width
        features = channels * resolution**2
        for i, width in enumerate(fc):
            self.add_module(f"fc{i + 1}", nn.Linear(features, width))
            init_xavier(self.get_submodule(f"fc{i + 1}"))
            features = width
        self.out_features = features

    def forward(self, features: Sequence[Tensor], boxes: Tensor, image: Tensor, gradient_scale: float = 1.0) -> Tensor:
        """Pyramid, boxes (R, 4), image (R,) -> (R, D); the pyramid's gradient is multiplied by `gradient_scale`."""
        x = self.pooler(features, boxes, image)
        if gradient_scale != 1.0 and x.requires_grad:
            x.register_hook(lambda gradient: gradient * gradient_scale)
        return self.transform(x)

    def transform(self, x: Tensor) -> Tensor:
        """Pooled maps (R, C, S, S) -> (R, D)."""
        for i in range(self.num_convs):
            x = self.get_submodule(f"conv{i + 1}")(x)
        x = x.flatten(1)
        for i in range(self.num_fc):
            x = F.relu_(self.get_submodule(f"fc{i + 1}")(x))
        return x


def box_predictor(classifier: nn.Module, in_features: int, regression_classes: int) -> Calibration:
    """A (calibrated) classifier with the box regression layer beside it, the layout of published predictors.

    `regression_classes` is 1 or the number of foreground classes; class k owns outputs 4k to 4k + 3.
    """
    predictor = classifier if isinstance(classifier, Calibration) else Calibration(classifier)
    predictor.bbox_pred = nn.Linear(in_features, 4 * regression_classes)
    init_normal(predictor.bbox_pred, std=0.001)
    return predictor


def box_loss(
    deltas: Tensor, boxes: Tensor, truth_boxes: Tensor, labels: Tensor, coder: BoxCoder, num_classes: int
) -> Tensor:
    """L1 over the own-class deltas of foreground rows, divided by all rows.

    deltas (R, 4 B), boxes and truth_boxes (R, 4), labels (R,) with `num_classes` for background -> scalar, 0 for R = 0.
    """
    foreground = labels < num_classes
    own = own_deltas(deltas, torch.where(foreground, labels, 0))
    wanted = torch.where(foreground[:, None], coder.encode(boxes, truth_boxes), 0.0)
    distance = F.l1_loss(own.float(), wanted, reduction="none") * foreground[:, None]
    return distance.sum() / max(1, len(labels))


def own_deltas(deltas: Tensor, classes: Tensor) -> Tensor:
    """(R, 4 B), (R,) -> (R, 4) the deltas of one class per row."""
    per_class = deltas.view(len(deltas), -1, 4)
    if per_class.shape[1] == 1:
        return per_class[:, 0]
    return per_class.gather(1, classes[:, None, None].expand(-1, 1, 4))[:, 0]
