"""Image files to uint8 tensors: decoding, EXIF orientation, grey / palette / CMYK files, and honest errors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cvpods_ext.errors import DataError

Channels = Literal["RGB", "BGR"]


def read(path: Path, size: tuple[int, int], image_id: int, channels: Channels = "RGB") -> Tensor:
    """Decode an image to uint8 (3, H, W), upright, of the `size` = (height, width) that its annotations assume.

    A file whose stored pixels have that size only before its EXIF rotation is left as stored, since then its
    annotations were drawn on it that way. DataError names file and image id if it is missing,
    broken or of another size.
    """
    try:
        image = _decode(path, upright=True)
        if tuple(image.shape[1:]) != size and tuple(image.shape[:0:-1]) == size:
            image = _decode(path, upright=False)
    except FileNotFoundError:
        raise DataError(f"image {image_id}: {path} does not exist; `pods_data doctor` lists what is missing") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"image {image_id}: {path} cannot be decoded ({reason}); download or convert it again"
        ) from error
    if tuple(image.shape[1:]) != size:
        raise DataError(
            f"image {image_id}: {path} is {image.shape[2]} x {image.shape[1]} pixels, but its annotations are for "
            f"{size[1]} x {size[0]}; image and json do not belong together"
        )
    return image[[2, 1, 0]] if channels == "BGR" else image


def _decode(path: Path, upright: bool) -> Tensor:
    """uint8 (3, H, W) RGB; Pillow notices truncated files, and torchvision's own decoders are being retired."""
    with Image.open(path) as file:
        opened = ImageOps.exif_transpose(file) if upright else file
        if opened.mode.startswith("I"):  # 16 bits a channel
            opened = Image.fromarray((np.asarray(opened, np.uint32) // 257).astype(np.uint8))
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
