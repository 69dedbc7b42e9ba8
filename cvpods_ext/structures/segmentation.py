"""The records of semantic segmentation: the label map that a model learns from, and the one that it predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

Size = tuple[int, int]
IGNORE = 255  # pixels without ground truth


@dataclass
class LabelMap:
    """Ground truth of one image: `labels` (H, W) uint8 in [0, num_classes), or IGNORE; size (0, 0) at test time.

    `size` and `original_size` are (height, width) of the image that the model sees, and of the file.
    """

    labels: Tensor
    image_id: int
    size: Size
    original_size: Size

    def to(self, device: torch.device | str) -> LabelMap:
        """Move the labels."""
        return replace(self, labels=self.labels.to(device, non_blocking=True))

    def pin_memory(self) -> LabelMap:
        """Page-locked copy, called by the data loader before an asynchronous copy to the device."""
        return replace(self, labels=self.labels.pin_memory())


@dataclass
class PredictedLabels:
    """The class of every pixel of an image in its original size: `labels` (H, W) uint8 in [0, num_classes)."""

    labels: Tensor
    image_id: int
