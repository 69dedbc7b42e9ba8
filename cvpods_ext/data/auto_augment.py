"""timm's augmentations by their names, and what has to be mended in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from PIL import Image
from timm.data import auto_augment as timm_augment

from cvpods_ext.errors import ConfigError

# Parts that timm's random augmentation reads: numbers behind their names, and a set of operations.
_RAND = re.compile(r"rand(-((m|n|p|mstd|mmax|inc)\d+(\.\d+)?|t[a-z0-9]+))*")


def augmentation(policy: str, side: int, fill: tuple[int, int, int]) -> Callable[[Image.Image], Image.Image]:
    """timm's augmentation of that name for images of `side` pixels; ConfigError if there is none."""
    settings = {"translate_const": int(side * 0.45), "img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
    makers = {"rand": timm_augment.rand_augment_transform, "augmix": timm_augment.augment_and_mix_transform}
    try:
        if policy.startswith("rand") and not _RAND.fullmatch(policy):  # timm passes over parts without a number
            raise ValueError
        made = makers.get(policy.partition("-")[0], timm_augment.auto_augment_transform)(policy, settings)
    except (AssertionError, KeyError, ValueError) as error:
        raise ConfigError(
            f"data.auto_augment={policy!r} is no policy of timm's ({type(error).__name__}); write for example "
            "rand-m9-mstd0.5-inc1, augmix-m5 or original"
        ) from None
    for operation in _operations(made):
        if operation.aug_fn is timm_augment.posterize:
            operation.aug_fn = posterize
    return made


def _operations(made: Any) -> list[Any]:
    """Every operation of an augmentation of timm's: a list of them, or the pairs of a policy."""
    found = getattr(made, "ops", None) or getattr(made, "augmentations", None) or getattr(made, "policy", [])
    return [inner for one in found for inner in (one if isinstance(one, list | tuple) else (one,))]


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Keep the upper bits of every channel; 0 bits leave black.

    Pillow 12 and later refuse 0 bits, which the strongest level of an increasing policy asks for, about once in 700
    images of rand-m9-mstd0.5-inc1. The published models were trained when it gave black.
    """
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return timm_augment.posterize(image, bits_to_keep)
