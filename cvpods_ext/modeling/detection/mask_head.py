"""From a pooled box to the mask of one class (Mask R-CNN, https://arxiv.org/abs/1703.06870).

Shapes: M = instances, D = width, S = pooled side (14), C = classes (1 if class-agnostic), G = groups of P pixels each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.classifiers import normalized
from cvpods_ext.modeling.detection.pooling import RoIPooler
from cvpods_ext.modeling.layers import Conv2d, init_msra

INSTANCES_AT_ONCE = 32  # the features of so many instances fit into a processor's cache


class MaskPredictor(nn.Module):
    """A linear classifier of pixels per class, evaluated only for the class that is asked for.

    A 1x1 convolution to C channels would compute C - 1 channels that neither the loss nor the test ever reads.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.normal_(self.weight, std=0.001)

    def forward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Feature vectors of pixels (M, G, D, P), labels (M,) -> (M, G, P) logits of that class."""
        labels = labels if len(self.weight) > 1 else torch.zeros_like(labels)
        logits = torch.matmul(self.weight.flatten(1)[labels][:, None, None], pixels)[:, :, 0]
        return logits + self.bias[labels][:, None, None]


class NormalizedMaskPredictor(nn.Module):
    """Pixels are classified by cosine similarity times a fixed scale plus a bias per class: a 1x1 NormedConv2d of
    mmdetection, with the initialisation of its mask head.
    """

    def __init__(self, in_channels: int, num_classes: int, *, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.scale = scale
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Feature vectors of pixels (M, G, D, P), labels (M,) -> (M, G, P), each within `scale` of its class's bias."""
        labels = labels if len(self.weight) > 1 else torch.zeros_like(labels)
        with torch.autocast(pixels.device.type, enabled=False):
            kernel = normalized(self.weight.flatten(1), dim=1)[labels][:, None, None]
            cosine = torch.matmul(kernel, normalized(pixels.to(kernel.dtype), dim=2))[:, :, 0]
            return self.scale * cosine + self.bias[labels][:, None, None]


class MaskHead(nn.Module):
    """Pools a box, then convolutions `mask_fcn1`..., a transposed convolution and the predictor."""

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        predictor: nn.Module,
        *,
        width: int = 256,
        convs: int = 4,
        norm: str = "",
        resolution: int = 14,
    ) -> None:
        super().__init__()
        self.pooler = RoIPooler(resolution, strides)
        self.num_convs = convs
        self.mask_size = 2 * resolution
        for i in range(convs):
            self.add_module(f"mask_fcn{i + 1}", Conv2d(channels, width, 3, norm=norm, relu=True))
            init_msra(self.get_submodule(f"mask_fcn{i + 1}"))
            channels = width
        self.deconv = nn.ConvTranspose2d(channels, width, 2, stride=2)
        init_msra(self.deconv)
        self.predictor = predictor

    def forward(self, features: Sequence[Tensor], boxes: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Pyramid, boxes (M, 4), image (M,), labels (M,) -> (M, 2 S, 2 S) logits of the given class."""
        x = self.pooler(features, boxes, image)
        if torch.is_grad_enabled() or x.is_cuda or len(x) <= INSTANCES_AT_ONCE:
            return self._segment(x, labels)
        parts = zip(x.split(INSTANCES_AT_ONCE), labels.split(INSTANCES_AT_ONCE), strict=True)
        return torch.cat([self._segment(part, part_labels) for part, part_labels in parts])

    def _segment(self, x: Tensor, labels: Tensor) -> Tensor:
        """(M, D, S, S) -> (M, 2 S, 2 S)."""
        for i in range(self.num_convs):
            x = self.get_submodule(f"mask_fcn{i + 1}")(x)
        return self._upsample(x, labels)

    def _upsample(self, x: Tensor, labels: Tensor) -> Tensor:
        """(M, D, S, S) -> (M, 2 S, 2 S).

        A transposed convolution of kernel and stride 2 is four 1x1 convolutions, one for each corner of the 2x2 pixels
        that a cell becomes. As such it is faster, and only the logits have to be put in place.
        """
        kernel = self.deconv.weight.permute(2, 3, 1, 0).reshape(-1, x.shape[1], 1, 1)
        assert self.deconv.bias is not None
        corners = F.relu_(F.conv2d(x, kernel, self.deconv.bias.repeat(4)))
        side = x.shape[2]
        logits = self.predictor(corners.view(len(x), 4, len(kernel) // 4, side * side), labels).float()
        logits = logits.view(len(x), 2, 2, side, side).permute(0, 3, 1, 4, 2)
        return logits.reshape(len(x), 2 * side, 2 * side)


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross entropy over all pixels of (M, H, W); 0 and connected to the graph if M is 0."""
    if len(logits) == 0:
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits, truth)
