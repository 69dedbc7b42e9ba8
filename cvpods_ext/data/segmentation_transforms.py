"""What is done to a training image and its label map: resize, crop, mirror, distort colours.

A transform is a callable (image, target, rng) -> (image, target), as in `data.transforms`. The order of the draws, and
every pixel, follow the pipeline that the published models were trained with. Padding belongs to the model.
Shapes: H, W = rows and columns of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cvpods_ext.structures.pixels import keep_ratio_size, resize_bilinear, resize_nearest
from cvpods_ext.structures.segmentation import IGNORE, LabelMap


class PixelTransform(Protocol):
    """uint8 RGB (3, H, W) and its label map in, the same out."""

    def __call__(self, image: Tensor, target: LabelMap, rng: np.random.Generator) -> tuple[Tensor, LabelMap]:
        """All of its randomness is drawn from `rng`."""
        ...


@dataclass(frozen=True)
class RandomResize:
    """Fit the image into (r * long, r * short) with r from U(low, high), keeping its ratio."""

    short: int
    long: int
    low: float = 0.5
    high: float = 2.0

    def __call__(self, image: Tensor, target: LabelMap, rng: np.random.Generator) -> tuple[Tensor, LabelMap]:
        """(3, H, W) -> (3, H', W'), labels by their nearest pixel."""
        ratio = rng.random() * (self.high - self.low) + self.low
        size = keep_ratio_size(target.size, short=int(self.short * ratio), long=int(self.long * ratio))
        labels = resize_nearest(target.labels, size)
        return resize_bilinear(image, size), replace(target, labels=labels, size=size)


@dataclass(frozen=True)
class RandomCrop:
    """Cut out at most side x side pixels, where no class covers `largest_share` of the labelled ones.

    A window is drawn up to `attempts` times; the one drawn after that is taken as it is.
    """

    side: int
    largest_share: float = 0.75
    attempts: int = 10

    def __call__(self, image: Tensor, target: LabelMap, rng: np.random.Generator) -> tuple[Tensor, LabelMap]:
        """(3, H, W) -> (3, at most side, at most side)."""
        for attempt in range(self.attempts + 1):
            y, x = (int(rng.integers(0, max(length - self.side, 0) + 1)) for length in target.size)
            inside = (slice(y, y + self.side), slice(x, x + self.side))
            labels = target.labels[inside]
            if attempt == self.attempts or self.is_varied(labels):
                break
        crop = image[:, inside[0], inside[1]].contiguous()  # a view would keep the whole image alive
        return crop, replace(target, labels=labels.contiguous(), size=(labels.shape[0], labels.shape[1]))

    def is_varied(self, labels: Tensor) -> bool:
        """Whether more than one class is labelled and the largest has less than its share."""
        counts = torch.bincount(labels[labels != IGNORE].long())
        return int((counts > 0).sum()) > 1 and int(counts.max()) / int(counts.sum()) < self.largest_share


@dataclass(frozen=True)
class MirrorPixels:
    """Mirror image and labels with a probability."""

    probability: float = 0.5

    def __call__(self, image: Tensor, target: LabelMap, rng: np.random.Generator) -> tuple[Tensor, LabelMap]:
        """(3, H, W) -> (3, H, W)."""
        if rng.random() >= self.probability:
            return image, target
        return image.flip(2), replace(target, labels=target.labels.flip(1))


@dataclass(frozen=True)
class PhotometricDistortion:
    """Change brightness, contrast, saturation and hue, each with probability 0.5, in steps of whole grey levels.

    Contrast comes before or after the two others at random. `brightness` and `hue` are added (hue in degrees / 2),
    `contrast` and `saturation` multiply.
    """

    brightness: float = 32
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18

    def __call__(self, image: Tensor, target: LabelMap, rng: np.random.Generator) -> tuple[Tensor, LabelMap]:
        """(3, H, W) -> (3, H, W); labels stay."""
        pixels = image.numpy()
        if rng.integers(2):
            pixels = scale_and_shift(pixels, 1.0, rng.uniform(-self.brightness, self.brightness))
        contrast_first = bool(rng.integers(2))
        if contrast_first:
            pixels = self._change_contrast(pixels, rng)
        if rng.integers(2):
            pixels = change_saturation(pixels, rng.uniform(*self.saturation))
        if rng.integers(2):
            pixels = change_hue(pixels, int(rng.integers(-self.hue, self.hue)))
        if not contrast_first:
            pixels = self._change_contrast(pixels, rng)
        return torch.from_numpy(pixels), target

    def _change_contrast(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return scale_and_shift(pixels, rng.uniform(*self.contrast), 0.0) if rng.integers(2) else pixels


def training_transforms(side: int, *, short: int, long: int, flip: float = 0.5) -> Sequence[PixelTransform]:
    """The published augmentation into crops of `side` pixels of images fitted into (long, short) times 0.5 to 2."""
    return RandomResize(short, long), RandomCrop(side), MirrorPixels(flip), PhotometricDistortion()


# ---- colours: uint8 RGB (3, H, W) in and out ------------------------------------------------------------------------


def scale_and_shift(pixels: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """scale * pixel + shift within [0, 255], fractions cut off."""
    changed = pixels.astype(np.float32) * np.float32(scale) + np.float32(shift)
    return changed.clip(0, 255).astype(np.uint8)


def change_saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the saturation of every pixel."""
    hsv = to_hsv(pixels)
    return from_hsv(np.stack((hsv[0], scale_and_shift(hsv[1], factor, 0.0), hsv[2])))


def change_hue(pixels: np.ndarray, shift: int) -> np.ndarray:
    """Turn the hue of every pixel by `shift` of 180 steps."""
    hsv = to_hsv(pixels)
    return from_hsv(np.stack(((hsv[0].astype(np.int64) + shift) % 180, hsv[1], hsv[2])))


_HSV_BITS = 12  # of OpenCV's reciprocals
_PER_VALUE = np.concatenate(([0], np.rint((255 << _HSV_BITS) / np.arange(1, 256)))).astype(np.int64)
_PER_RANGE = np.concatenate(([0], np.rint((180 << _HSV_BITS) / (6.0 * np.arange(1, 256))))).astype(np.int64)
# Which of value, low, falling and rising are red, green and blue in each sixth of the circle.
_SIXTHS = np.array([[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]])


def to_hsv(pixels: np.ndarray) -> np.ndarray:
    """RGB (3, H, W) -> hue in [0, 180), saturation and value in [0, 255], as OpenCV computes them for uint8."""
    red, green, blue = pixels.astype(np.int64)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    half = 1 << (_HSV_BITS - 1)
    saturation = (spread * _PER_VALUE[value] + half) >> _HSV_BITS
    blue_side = np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    sixths = np.where(value == red, green - blue, blue_side)
    hue = (sixths * _PER_RANGE[spread] + half) >> _HSV_BITS
    return np.stack((np.where(hue < 0, hue + 180, hue), saturation, value)).astype(np.uint8)


def from_hsv(hsv: np.ndarray) -> np.ndarray:
    """The inverse of `to_hsv`, fractions cut off as OpenCV's vector code does (its scalar code rounds).

    Products are subtracted from one in a single rounding, as there.
    """
    hue = hsv[0].astype(np.float32) * np.float32(6 / 180)
    saturation, value = (x.astype(np.float32) * np.float32(1 / 255) for x in hsv[1:])
    sixth = np.floor(hue)
    along = hue - sixth
    one, exact = np.float32(1), saturation.astype(np.float64)
    falling = (1 - exact * along).astype(np.float32)
    rising = (1 - exact * (one - along)).astype(np.float32)
    levels = np.stack((value, value * (one - saturation), value * falling, value * rising))
    chosen = _SIXTHS[sixth.astype(np.int64) % 6]
    rgb = np.take_along_axis(levels, np.moveaxis(chosen, -1, 0), axis=0) * np.float32(255)
    return rgb.clip(0, 255).astype(np.uint8)
