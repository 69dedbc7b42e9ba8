"""Label maps of whole images from a network that takes crops: sliding window, several scales, mirrored.

Shapes: K = classes, S = side of a crop, H, W = rows and columns of a resized image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.segmentation.layers import resize_map
from cvpods_ext.structures.pixels import Size, keep_ratio_size, resize_bilinear

CropLogits = Callable[[Tensor], Tensor]  # normalised (B, 3, S, S) -> logits (B, K, ., .)
Normalise = Callable[[Tensor], Tensor]  # uint8 (3, H, W) -> float32 (3, H, W)
_CROPS_AT_ONCE = 4  # through the network
_STRIP = 2**24  # class values that one strip of resized logits may hold


@dataclass(frozen=True, kw_only=True)
class TestScales:
    """In which sizes an image is looked at, and how the crops lie on it.

    `short` and `long` are the sides into which an image is resized, keeping its ratio. With several `ratios`, or
    one other than 1, the shorter side becomes ratio * short but at least the crop's, whatever the longer one.
    `flip` adds the mirrored image. "slide" moves the crop by `stride` pixels; "whole" shrinks each image into one crop.
    """

    __test__ = False  # no test, whatever pytest thinks of the name

    short: int = 512
    long: int = 2048
    crop: int = 512
    stride: int = 341
    ratios: tuple[float, ...] = (1.0,)
    flip: bool = False
    mode: str = "slide"

    def __post_init__(self) -> None:
        if self.mode not in ("slide", "whole"):
            raise ConfigError(f"unknown way {self.mode!r} to test a segmentation model: choose 'slide' or 'whole'")
        if not 0 < self.stride <= self.crop:
            raise ConfigError(f"stride={self.stride} must be in [1, {self.crop}], or pixels between crops are missed")
        if not self.ratios or min(self.ratios) <= 0:
            raise ConfigError(f"ratios={self.ratios} must be positive numbers")

    def sizes(self, size: Size) -> Counter[Size]:
        """Sizes to which an image of `size` = (height, width) is resized, and how often each counts."""
        if self.mode == "whole":
            return Counter({keep_ratio_size(size, short=self.crop, long=self.crop): 1})
        if self.ratios == (1.0,):
            return Counter({keep_ratio_size(size, short=self.short, long=self.long): 1})
        shorts = (max(self.crop, int(self.short * ratio)) for ratio in self.ratios)
        return Counter(keep_ratio_size(size, short=short) for short in shorts)


def predict(image: Tensor, size: Size, scales: TestScales, normalise: Normalise, logits: CropLogits) -> Tensor:
    """uint8 (3, ., .) -> uint8 (*size): the class of largest mean probability of every pixel.

    Probabilities are averaged after each pass was resized to `size`, as the reference does; memory is one (K, *size)
    float32 array beside the largest pass.
    """
    if sum(scales.sizes(size).values()) == 1 and not scales.flip:  # softmax changes no maximum
        (strips,) = (resize_in_strips(raw, size) for raw, _, _ in passes(image, scales, normalise, logits))
        return torch.cat([strip.argmax(dim=0).to(torch.uint8) for strip in strips])
    return probabilities(image, size, scales, normalise, logits).argmax(dim=0).to(torch.uint8)


def probabilities(image: Tensor, size: Size, scales: TestScales, normalise: Normalise, logits: CropLogits) -> Tensor:
    """uint8 (3, ., .) -> float32 (K, *size), the mean over all passes."""
    total, count = None, 0
    for raw, weight, flipped in passes(image, scales, normalise, logits):
        start = 0
        for strip in resize_in_strips(raw, size):
            strip = strip.softmax(dim=0)
            if total is None:
                total = strip.new_zeros((len(strip), *size))
            total[:, start : start + strip.shape[1]].add_(strip.flip(2) if flipped else strip, alpha=weight)
            start += strip.shape[1]
        count += weight
    assert total is not None
    return total / count


def passes(
    image: Tensor, scales: TestScales, normalise: Normalise, logits: CropLogits
) -> Iterator[tuple[Tensor, int, bool]]:
    """Logits (K, H, W) of every distinct size of an image, how often it counts, and whether it is mirrored."""
    for size, weight in scales.sizes((image.shape[1], image.shape[2])).items():
        pixels = normalise(resize_bilinear(image, size))
        for flipped in (False, True) if scales.flip else (False,):
            yield (
                slide_logits(pixels.flip(2) if flipped else pixels, scales.crop, scales.stride, logits),
                weight,
                flipped,
            )


def slide_logits(image: Tensor, crop: int, stride: int, logits: CropLogits) -> Tensor:
    """Normalised (3, H, W) -> float32 logits (K, H, W), the mean of all crops that cover a pixel.

    An image with a side below the crop's is padded with zeros at its right and lower border, as in training.
    """
    height, width = image.shape[1:]
    padded = image.new_zeros((3, max(height, crop), max(width, crop)))
    padded[:, :height, :width] = image
    corners = list(windows((padded.shape[1], padded.shape[2]), crop, stride))
    total = None
    count = image.new_zeros(padded.shape[1:])
    for start in range(0, len(corners), _CROPS_AT_ONCE):
        insides = [(..., slice(y, y + crop), slice(x, x + crop)) for y, x in corners[start : start + _CROPS_AT_ONCE]]
        for inside, part in zip(insides, logits(torch.stack([padded[inside] for inside in insides])), strict=True):
            part = resize_map(part[None], (crop, crop))[0].float()
            if total is None:
                total = part.new_zeros((len(part), *padded.shape[1:]))
            total[inside] += part
            count[inside] += 1
    assert total is not None
    return total.div_(count)[:, :height, :width]


def windows(size: Size, crop: int, stride: int) -> Iterator[Size]:
    """Upper left corners (y, x) of the crops, row by row; the last of a row or column is moved inside."""
    height, width = size
    for row in range(max(height - crop + stride - 1, 0) // stride + 1):
        for column in range(max(width - crop + stride - 1, 0) // stride + 1):
            yield max(min(row * stride, height - crop), 0), max(min(column * stride, width - crop), 0)


def resize_in_strips(x: Tensor, size: Size) -> Iterator[Tensor]:
    """(K, H, W) -> the bilinearly resized (K, *size) as strips of rows, so that a large image needs little memory.

    Vertical neighbours are mixed by hand, the rest by torch; equal to resizing at once but for rounding.
    """
    classes, rows, _ = x.shape
    centre = (torch.arange(size[0], dtype=torch.float32, device=x.device) + 0.5) * (rows / size[0]) - 0.5
    centre = centre.clamp(min=0)  # in float32, as torch has it
    above = centre.long()
    below = (above + 1).clamp(max=rows - 1)
    share = (centre - above).to(x.dtype)[:, None]
    step = max(1, _STRIP // (classes * max(size[1], x.shape[2])))
    for start in range(0, size[0], step):
        part = slice(start, min(start + step, size[0]))
        mixed = torch.lerp(x[:, above[part]], x[:, below[part]], share[part])
        yield resize_map(mixed[None], (mixed.shape[1], size[1]))[0]
