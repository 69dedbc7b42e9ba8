"""Pipelines of torchvision's transforms, as old folders of image classification list them, as settings of ours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.errors import ConfigError

_TRAIN = ("RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter")
_TEST = ("Resize", "CenterCrop")
_INTERPOLATIONS = ("bilinear", "bicubic")


def settings(aug: AttributeDict) -> dict[str, Any]:
    """Fields of `ClassificationData`. ConfigError with one line for each step that has no place among them."""
    train, test = (_by_kind(aug[f"{split}_PIPELINES"], split) for split in ("TRAIN", "TEST"))
    lines = [*_refused(train, _TRAIN, "TRAIN"), *_refused(test, _TEST, "TEST")]
    if lines:
        raise ConfigError("\n".join(lines))
    crop, flip, jitter = train["RandomResizedCrop"], train.get("RandomHorizontalFlip"), train.get("ColorJitter")
    side, interpolation = _side(crop.size), crop.interpolation.value
    resize, tested = test["Resize"], _side(test["CenterCrop"].size)
    sides = np.atleast_1d(resize.size).tolist()
    both_sides = len(sides) == 2
    lines = []
    if getattr(resize, "max_size", None) or (both_sides and sides != [tested, tested]):
        lines.append(f"INPUT.AUG.TEST_PIPELINES resizes to {resize.size}: give the short edge alone, Resize(256)")
    if lines:
        raise ConfigError("\n".join(lines))
    if _side(test["CenterCrop"].size) != side:
        lines.append(f"INPUT.AUG: training crops have {side} pixels, test crops {_side(test['CenterCrop'].size)}")
    if test["Resize"].interpolation.value != interpolation or interpolation not in _INTERPOLATIONS:
        lines.append(f"INPUT.AUG: all images are resized in one way, {' or '.join(_INTERPOLATIONS)}")
    if not math.isclose(crop.ratio[0], 3 / 4) or not math.isclose(crop.ratio[1], 4 / 3):
        lines.append(f"INPUT.AUG.TRAIN_PIPELINES: crops of ratio {crop.ratio}; only (3/4, 4/3) is possible")
    if lines:
        raise ConfigError("\n".join(lines))
    return dict(
        image_side=side,
        crop_area=tuple(map(float, crop.scale)),
        test_resize="squash" if both_sides else "crop",
        crop_ratio=1.0 if both_sides else crop_ratio(tested, int(sides[0])),
        interpolation=interpolation,
        flip_probability=0.0 if flip is None else float(flip.p),
        color_jitter=(0.0,) * 4 if jitter is None else _jitter(jitter),
    )


def crop_ratio(side: int, short_edge: int) -> float:
    """The share that a middle crop of `side` keeps of a short edge, so that int(side / share) is the edge again."""
    ratio = side / short_edge
    return ratio if int(side / ratio) == short_edge else math.nextafter(ratio, 0)


def _by_kind(pipeline: Any, split: str) -> dict[str, Any]:
    """Transforms by the names of their classes, those within a Compose as well."""
    found: dict[str, Any] = {}
    for transform in _steps(pipeline):
        name = transform if isinstance(transform, str) else type(transform).__name__
        if name in found:
            raise ConfigError(f"INPUT.AUG.{split}_PIPELINES has {name} twice")
        found[name] = transform
    return found


def _steps(pipeline: Any) -> Iterator[Any]:
    for entry in pipeline:
        step: Any = entry[1] if isinstance(entry, list | tuple) and len(entry) == 2 else entry
        step = entry[0] if isinstance(step, dict) else step  # a transform of cvpods with its arguments
        if type(step).__name__ == "Compose":
            yield from _steps(step.transforms)
        else:
            yield step


def _refused(found: dict[str, Any], known: tuple[str, ...], split: str) -> Iterator[str]:
    for name in found:
        if name not in known:
            yield f"INPUT.AUG.{split}_PIPELINES has {name}; possible are torchvision's {', '.join(known)}"
    for name in known[:1] if split == "TRAIN" else known:
        if name not in found:
            yield f"INPUT.AUG.{split}_PIPELINES has no {name}, which gives images their size"


def _side(size: Any) -> int:
    """A side in pixels, of an int or a pair of equal ones."""
    sides = set(np.atleast_1d(size).tolist())
    if len(sides) != 1:
        raise ConfigError(f"INPUT.AUG: inputs of {tuple(size)} pixels; only squares are possible")
    return int(sides.pop())


def _jitter(transform: Any) -> tuple[float, ...]:
    """How far brightness, contrast, saturation and hue may change; torchvision keeps ranges around 1, or 0 for hue."""
    factors = []
    for name, centre in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)):
        low, high = getattr(transform, name) or (centre, centre)
        if not math.isclose(low, max(2 * centre - high, 0 if centre else -high)):
            raise ConfigError(f"INPUT.AUG.TRAIN_PIPELINES: ColorJitter changes {name} from {low} to {high}, unevenly")
        factors.append(round(float(high - centre), 9))  # 0.4, not 0.3999999999999999
    return tuple(factors)
