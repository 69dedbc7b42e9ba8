"""Map-style data sets over any kind of annotations: images are read, checked and transformed in worker processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from cvpods_ext.errors import DataError
from cvpods_ext.structures import Target


@dataclass(frozen=True)
class BrokenImage:
    """An image that could not be used, and why."""

    image_id: int
    reason: str


@dataclass
class Sample:
    """What a worker hands over; `image` and `target` are None if no image could be read."""

    image: Tensor | None = None
    target: Target | None = None
    broken: list[BrokenImage] = field(default_factory=list)


class ImageSource(Protocol):
    """Images and their ground truth by position; it is copied into worker processes."""

    def image_id(self, position: int) -> int:
        """The id by which messages and predictions name the image."""
        ...

    def training_sample(self, position: int, rng: np.random.Generator) -> tuple[Tensor, Target]:
        """uint8 (3, H, W) and its target, augmented by `rng` alone. DataError if the image cannot be read."""
        ...

    def test_sample(self, position: int) -> tuple[Tensor, Target]:
        """uint8 (3, H, W) as it is tested, and what the model may know about it. DataError as above."""
        ...


@dataclass
class TrainingDataset(Dataset):
    """Augmented training samples, addressed by (draw, image) so that every draw has its own fixed randomness.

    A broken image is replaced by the next readable one and reported in the sample; `patience` is how many broken
    ones in a row are stepped over.

    Args:
        positions: which images of the source are trained on.
    """

    source: ImageSource
    positions: np.ndarray
    seed: int
    patience: int

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        draw, image = key
        sample = Sample()
        for step in range(min(self.patience + 1, len(self))):
            position = int(self.positions[(image + step) % len(self)])
            try:
                rng = np.random.default_rng((self.seed, draw))
                sample.image, sample.target = self.source.training_sample(position, rng)
                break
            except DataError as error:
                sample.broken.append(BrokenImage(self.source.image_id(position), str(error)))
        return sample


@dataclass
class InferenceDataset(Dataset):
    """Images to be tested, transformed the same way every time; a broken one is reported in its sample."""

    source: ImageSource
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Sample:
        position = int(self.positions[index])
        try:
            return Sample(*self.source.test_sample(position))
        except DataError as error:
            return Sample(broken=[BrokenImage(self.source.image_id(position), str(error))])
