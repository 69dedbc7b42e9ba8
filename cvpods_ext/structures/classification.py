"""The records of image classification: the class that a model learns from, and the scores that it predicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass
class ImageClass:
    """Ground truth of one image: `label` in [0, num_classes), or UNKNOWN at test time.

    `size` and `original_size` are (height, width) of what the model sees, and of the file.
    """

    label: int
    image_id: int
    size: Size
    original_size: Size

    def to(self, device: torch.device | str) -> ImageClass:
        """Itself: a number is on no device."""
        return self

    def pin_memory(self) -> ImageClass:
        """Itself."""
        return self


UNKNOWN = -1  # the label of an image without ground truth


@dataclass
class ClassScores:
    """The scores (num_classes,) float32 of one image, in [0, 1]; those of a softmax add up to 1."""

    scores: Tensor
    image_id: int
