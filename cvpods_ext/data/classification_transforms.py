"""What is done to an image before it is classified: resize and crop at test time, augmentation in training.

Photos are Pillow images in RGB, since the published models were trained and tested on what Pillow resamples; results
are uint8 (3, side, side). Augmentation draws from one generator, whatever library an operation is from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from cvpods_ext.data.images import to_tensor

Resampling = Image.Resampling
BICUBIC = Resampling.BICUBIC


class TestTransform(Protocol):
    """From a photo of any size to what the model is tested on."""

    __test__ = False

    def __call__(self, photo: Image.Image) -> Tensor:
        """RGB -> uint8 (3, side, side)."""
        ...


@dataclass(frozen=True)
class ShortEdgeCrop:
    """Resize the shorter edge to `side` / `crop_ratio`, then take the middle `side` x `side` pixels."""

    side: int
    crop_ratio: float = 1.0
    resampling: Resampling = BICUBIC

    def __call__(self, photo: Image.Image) -> Tensor:
        """RGB -> uint8 (3, side, side)."""
        width, height = short_edge_size(photo.size, int(self.side / self.crop_ratio))
        resized = photo if (width, height) == photo.size else photo.resize((width, height), self.resampling)
        left, top = round((width - self.side) / 2), round((height - self.side) / 2)
        return to_tensor(resized.crop((left, top, left + self.side, top + self.side)))


@dataclass(frozen=True)
class Squash:
    """Resize to `side` x `side` whatever the photo's ratio, so that nothing is cut off."""

    side: int
    resampling: Resampling = BICUBIC

    def __call__(self, photo: Image.Image) -> Tensor:
        """RGB -> uint8 (3, side, side)."""
        return to_tensor(photo.resize((self.side, self.side), self.resampling))


def short_edge_size(size: tuple[int, int], short: int) -> tuple[int, int]:
    """(width, height) whose shorter edge is `short`; the other one is cut down to whole pixels."""
    width, height = size
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


@dataclass(frozen=True)
class TrainingTransform:
    """A crop of random area and ratio resized to `side`, mirrored or not, then augmented if asked for.

    `area` is the range of the crop's share of the photo. `jitter` is how far brightness, contrast, saturation and hue
    may change, see torchvision's ColorJitter. `auto_augment` is a policy in timm's notation, such as
    rand-m9-mstd0.5-inc1; ConfigError for one that timm does not know. `fill` is the colour of what it moves in.
    """

    side: int
    area: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    auto_augment: str = ""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    resampling: Resampling = BICUBIC
    fill: tuple[int, int, int] = (124, 116, 104)

    def __call__(self, photo: Image.Image, rng: np.random.Generator) -> Tensor:
        """RGB -> uint8 (3, side, side); all randomness comes from `rng`."""
        with drawing_from(rng):
            return to_tensor(self._augment(self._crop(photo)))

    def prepare(self) -> None:
        """ConfigError for an augmentation that timm does not know; otherwise the first image would find out."""
        self._augment  # noqa: B018

    @cached_property
    def _crop(self) -> Callable[[Any], Any]:
        resampling = v2.InterpolationMode(self.resampling.name.lower())
        steps: list[v2.Transform] = [v2.RandomResizedCrop(self.side, self.area, interpolation=resampling)]
        steps.append(v2.RandomHorizontalFlip(self.flip))
        return v2.Compose([*steps, v2.ColorJitter(*self.jitter)] if any(self.jitter) else steps)

    @cached_property
    def _augment(self) -> Callable[[Any], Any]:
        if not self.auto_augment:
            return _unchanged
        from cvpods_ext.data.auto_augment import augmentation  # importing timm takes a second

        return augmentation(self.auto_augment, self.side, self.fill)


def _unchanged(image: Any) -> Any:
    return image


@contextmanager
def drawing_from(rng: np.random.Generator) -> Iterator[None]:
    """Within, the global generators of random, numpy and torch continue from `rng`; afterwards as they were before."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    seeds = rng.integers(1 << 32, size=3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])
