"""Images and label maps as training and test samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cvpods_ext.data import images
from cvpods_ext.data.segmentation import LabelledImages
from cvpods_ext.data.segmentation_transforms import PixelTransform
from cvpods_ext.structures.segmentation import LabelMap


@dataclass(frozen=True)
class SegmentationImages:
    """The images of a data set as `data.dataset.ImageSource`; test images come as they are, without labels."""

    dataset: LabelledImages
    channels: images.Channels
    augmentation: Sequence[PixelTransform] = ()

    def image_id(self, position: int) -> int:
        """Position plus one."""
        return position + 1

    def training_sample(self, position: int, rng: np.random.Generator) -> tuple[Tensor, LabelMap]:
        """The image at `position` after every transform in turn; the augmentation sees RGB."""
        labels = torch.from_numpy(self.dataset.read_labels(position))
        size = (labels.shape[0], labels.shape[1])
        image = self.read_image(position, size)
        target = LabelMap(labels, self.image_id(position), size, size)
        for transform in self.augmentation:
            image, target = transform(image, target, rng)
        return self._ordered(image), target

    def test_sample(self, position: int) -> tuple[Tensor, LabelMap]:
        """The image at `position` in its own size, with an empty label map."""
        image = self.read_image(position, self.dataset.size(position))
        return to_test_sample(self._ordered(image), self.image_id(position))

    def read_image(self, position: int, size: tuple[int, int]) -> Tensor:
        """uint8 RGB (3, *size); DataError if the image cannot be read or has another size than its label map."""
        return images.read(self.dataset.image_path(position), size, self.image_id(position), "RGB")

    def _ordered(self, image: Tensor) -> Tensor:
        return image[[2, 1, 0]] if self.channels == "BGR" else image


def to_test_sample(image: Tensor, image_id: int) -> tuple[Tensor, LabelMap]:
    """An image (3, H, W) with an empty label map."""
    size = (image.shape[1], image.shape[2])
    return image, LabelMap(torch.zeros((0, 0), dtype=torch.uint8), image_id, size, size)
