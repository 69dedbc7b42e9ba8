"""Small pictures for an HTML page: each image opened once for all that is drawn of it, cut to a window."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.image_file import open_image

SIDE = 180  # pixels of the longer side
CONTEXT = 0.6  # of the object's longer side, added all around
SMALLEST_WINDOW = 64  # pixels of the original image
JPEG_QUALITY = 72

ImagePath = Callable[[int], Path]


class Opener:
    """Opens images of one data set, the last one only once; `image_path` says where the image of an id lies."""

    def __init__(self, image_path: ImagePath) -> None:
        self.image_path = image_path
        self._last: tuple[int, Image.Image] | None = None

    def open(self, image_id: int) -> Image.Image:
        """The image in RGB. DataError if it cannot be read."""
        if self._last is None or self._last[0] != image_id:
            path = self.image_path(image_id)
            try:
                with open_image(path) as image:
                    self._last = (image_id, image.convert("RGB"))
            except (OSError, DataError) as error:
                raise DataError(f"image {image_id} cannot be read from {path} ({error}); pods_data doctor") from error
        return self._last[1]


def window(size: tuple[int, int], boxes: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) around all boxes (N, 4) XYXY, with context, inside an image of (width, height)."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = max(float((high - low).max()) * (1 + 2 * CONTEXT), SMALLEST_WINDOW)
    centre, extent = (low + high) / 2, np.array(size)
    start = np.clip(centre - side / 2, 0, np.maximum(extent - side, 0))
    end = np.minimum(start + side, extent)
    left, top = np.floor(start).astype(int).tolist()
    right, bottom = np.maximum(np.ceil(end).astype(int), [left + 1, top + 1]).tolist()
    return left, top, right, bottom


def data_uri(picture: Image.Image) -> str:
    """A JPEG of at most SIDE pixels as a data: URI."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # thin coloured lines
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
