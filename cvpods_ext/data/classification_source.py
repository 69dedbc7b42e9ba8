"""Images and their classes as training and test samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from cvpods_ext.config.classification import ClassificationData
from cvpods_ext.data import images
from cvpods_ext.data.classification import LabelledPhotos
from cvpods_ext.data.classification_transforms import (
    Resampling,
    ShortEdgeCrop,
    Squash,
    TestTransform,
    TrainingTransform,
)
from cvpods_ext.structures.classification import UNKNOWN, ImageClass


@dataclass(frozen=True)
class ClassificationImages:
    """The images of a data set as `data.dataset.ImageSource`, turned upright, in inputs of one size."""

    dataset: LabelledPhotos
    data: ClassificationData
    training: TrainingTransform

    def image_id(self, position: int) -> int:
        """Position plus one."""
        return position + 1

    def training_sample(self, position: int, rng: np.random.Generator) -> tuple[Tensor, ImageClass]:
        """An augmented crop of the image at `position`, and its class."""
        photo = self._photo(position)
        image, label = self.training(photo, rng), int(self.dataset.labels[position])
        return self._ordered(image), self._target(image, label, position, photo)

    def test_sample(self, position: int) -> tuple[Tensor, ImageClass]:
        """The image at `position` as it is tested, without its class."""
        pixels = images.read_upright(self.dataset.image_path(position), self.data.channels)
        return to_test_sample(pixels, self.image_id(position), self.data)

    def _target(self, image: Tensor, label: int, position: int, photo: Image.Image) -> ImageClass:
        size = (image.shape[1], image.shape[2])
        return ImageClass(label, self.image_id(position), size, (photo.height, photo.width))

    def _photo(self, position: int) -> Image.Image:
        return images.read_photo(self.dataset.image_path(position))

    def _ordered(self, image: Tensor) -> Tensor:
        return _mirrored(image, self.data)


def to_test_sample(pixels: Tensor, image_id: int, data: ClassificationData) -> tuple[Tensor, ImageClass]:
    """A picture (3, H, W) uint8 in `data.channels` as a model is given it in a test, and a target without its class."""
    photo = Image.fromarray(_mirrored(pixels, data).permute(1, 2, 0).contiguous().numpy())
    image = _mirrored(test_transform(data)(photo), data)
    size = (image.shape[1], image.shape[2])
    return image, ImageClass(UNKNOWN, image_id, size, (pixels.shape[1], pixels.shape[2]))


def _mirrored(image: Tensor, data: ClassificationData) -> Tensor:
    """From RGB to `data.channels`, or back."""
    return image[[2, 1, 0]] if data.channels == "BGR" else image


def source(dataset: LabelledPhotos, data: ClassificationData) -> ClassificationImages:
    """The images of `dataset` under the settings of an experiment; ConfigError for an unknown augmentation."""
    training = TrainingTransform(
        data.image_side,
        data.crop_area,
        data.flip_probability,
        data.auto_augment,
        data.color_jitter,
        _resampling(data),
    )
    return ClassificationImages(dataset, data, training)


def test_transform(data: ClassificationData) -> TestTransform:
    """From a photo of any size to the pixels that a test gives the model."""
    if data.test_resize == "squash":
        return Squash(data.image_side, _resampling(data))
    return ShortEdgeCrop(data.image_side, data.crop_ratio, _resampling(data))


def _resampling(data: ClassificationData) -> Resampling:
    return Resampling[data.interpolation.upper()]


test_transform.__test__ = False  # type: ignore[attr-defined]  # by its name pytest would take it for a test
