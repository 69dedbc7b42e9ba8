"""Image files to uint8 tensors: EXIF orientation, grey, palette, CMYK and 16-bit files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.image_file import open_image

Channels = Literal["RGB", "BGR"]


def read(path: Path, size: tuple[int, int], image_id: int, channels: Channels = "RGB") -> Tensor:
    """Decode an image to uint8 (3, H, W), upright, of the `size` = (height, width) that its annotations assume.

    A file whose stored pixels have that size only before its EXIF rotation is left as stored, since then its
    annotations were drawn on it that way. DataError names file and image id if it is missing, broken, of another
    size (which is known before anything is decoded), or of a format that is not read.
    """
    try:
        with open_image(path) as image:
            if size not in ((image.height, image.width), (image.width, image.height)):
                raise _OtherSizeError(image.height, image.width)
            pixels = _of_size(image, size)
    except FileNotFoundError:
        raise DataError(f"image {image_id}: {path} does not exist; `pods_data doctor` lists what is missing") from None
    except _OtherSizeError as other:
        height, width = other.args
        raise DataError(
            f"image {image_id}: {path} is {width} x {height} pixels, but its annotations are for "
            f"{size[1]} x {size[0]}; image and json do not belong together"
        ) from None
    except DataError as error:
        raise DataError(
            f"image {image_id}: {path} cannot be decoded ({error}); download or convert it again"
        ) from error
    return pixels[[2, 1, 0]] if channels == "BGR" else pixels


def read_upright(path: Path, channels: Channels = "RGB") -> Tensor:
    """Decode an unannotated image to uint8 (3, H, W), turned as EXIF says; DataError names the file."""
    pixels = to_tensor(read_photo(path))
    return pixels[[2, 1, 0]] if channels == "BGR" else pixels


def read_photo(path: Path) -> Image.Image:
    """Decode an image without known size to RGB of 8 bits, turned as EXIF says; DataError names the file."""
    try:
        with open_image(path) as image:
            return _plain(_turned(image))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except DataError as error:
        raise DataError(f"{path} cannot be decoded ({error}); download or convert it again") from error


def upright(image: Image.Image) -> Tensor:
    """Decode to RGB uint8 (3, H, W), turned as EXIF says; DataError for numbers without a known range."""
    return _pixels(_turned(image))


class _OtherSizeError(DataError):
    """The image has this height and width, and its annotations are for others."""


def _of_size(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Decode to (3, H, W) of `size`, turned as EXIF says unless it has that size as it is stored."""
    turned = _turned(image)
    if (turned.height, turned.width) != size:
        turned = image
    if (turned.height, turned.width) != size:
        raise _OtherSizeError(turned.height, turned.width)
    return _pixels(turned)


def _turned(image: Image.Image) -> Image.Image:
    # Without an orientation it would only be copied: a large image is in memory once here, and once as an array.
    return image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)


def _pixels(image: Image.Image) -> Tensor:
    return to_tensor(_plain(image))


def to_tensor(photo: Image.Image) -> Tensor:
    """RGB of 8 bits to uint8 (3, H, W)."""
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)


def _plain(image: Image.Image) -> Image.Image:
    """Decoded RGB of 8 bits; a copy only where it has to be."""
    plain = _eight_bits(image)
    plain = plain if plain.mode == "RGB" else plain.convert("RGB")
    plain.load()  # while the file is open
    return plain


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits a channel to 8; other numbers have no known range and are refused."""
    if image.mode == "F":
        raise DataError("it holds fractions, whose range is not known; convert it to 8 bits a channel")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, np.int64)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 1 << 16:
        raise DataError("it holds more than 16 bits a channel; convert it to 8 bits a channel")
    return Image.fromarray((values // 257).astype(np.uint8))
