"""Pictures that nobody annotated, in the order in which they are given: files, and pixels in memory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cvpods_ext.data import images
from cvpods_ext.data.dataset import BrokenImage, Sample
from cvpods_ext.data.image_folders import IMAGE_SUFFIXES, files_below
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.runtime.files import what_is_at
from cvpods_ext.structures import Target

SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
Picture = str | os.PathLike | np.ndarray | Image.Image | Tensor
Prepare = Callable[[Tensor, int], tuple[Tensor, Target]]
"""uint8 (3, H, W) in the channel order of the data, and an image id -> what a model is given in a test."""


def find(given: Sequence[str | os.PathLike]) -> list[Path]:
    """The image files that paths, folders and patterns with * name, each once.

    Of a folder all images in it and below it are taken, in the order of their names, without hidden ones. ConfigError
    for a name with nothing behind it, before any image is opened.
    """
    found: dict[Path, None] = {}
    for one in given:
        found |= dict.fromkeys(_named_by(Path(one).expanduser()))
    return list(found)


def _named_by(path: Path) -> list[Path]:
    if path.is_dir():
        below = [path / name for name in files_below(path, SUFFIXES)]
        if not below:
            raise ConfigError(f"{path} holds no image ({', '.join(SUFFIXES)})")
        return below
    if path.is_file():
        return [path]
    if not os.path.lexists(path) and glob.has_magic(str(path)):
        matching = [file for file in map(Path, sorted(glob.glob(str(path), recursive=True))) if file.is_file()]
        if not matching:
            raise ConfigError(f"no file is named like {path}")
        return matching
    raise ConfigError(f"{path} {what_is_at(path)}; give an image, a folder of images, or a pattern in quotes")


def to_pixels(picture: Picture, channels: images.Channels) -> Tensor:
    """uint8 (3, H, W) in the order `channels` of a file, a PIL image, or pixels in RGB.

    An array is (H, W, 3) or (H, W), a tensor (3, H, W), both uint8. DataError for a file that cannot be read,
    ConfigError for other pixels.
    """
    if isinstance(picture, str | os.PathLike):
        return images.read_upright(Path(picture), channels)
    if isinstance(picture, Image.Image):
        pixels = images.upright(picture)
    elif isinstance(picture, Tensor):
        pixels = picture.detach().cpu()
    elif isinstance(picture, np.ndarray):
        layers = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(layers, -1, 0)))
    else:
        raise ConfigError(f"a picture is a path, an array, a PIL image or a tensor, got {type(picture).__name__}")
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3 or 0 in pixels.shape:
        shape = tuple(pixels.shape)
        raise ConfigError(
            f"got {type(picture).__name__}, as channels, rows and columns {shape} {pixels.dtype}: an array must be "
            "uint8 (H, W, 3) or (H, W), a tensor uint8 (3, H, W), both in RGB"
        )
    return pixels[[2, 1, 0]] if channels == "BGR" else pixels


@dataclass
class Photos(Dataset):
    """Pictures as test samples, for `data.loader.test_batches`; the id of each is its position plus one."""

    pictures: Sequence[Any]
    channels: images.Channels
    prepare: Prepare

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, position: int) -> Sample:
        try:
            return Sample(*self.prepare(to_pixels(self.pictures[position], self.channels), position + 1))
        except DataError as error:
            return Sample(broken=[BrokenImage(position + 1, str(error))])
