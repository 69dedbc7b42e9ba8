"""Small pictures of single mistakes: what was annotated in green, what was predicted in red, with some surroundings."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.report.evidence import Judgement, Mistake
from cvpods_ext.runtime.image_file import open_image
from cvpods_ext.tasks.drawing import Shape, decode_rle, draw_shapes

SIDE = 180  # pixels of the longer side
CONTEXT = 0.6  # of the object's longer side, added all around
SMALLEST_CROP = 64  # pixels of the original image
JPEG_QUALITY = 72
TRUTH, PREDICTION = (0, 170, 60), (225, 30, 40)

ImagePath = Callable[[int], Path]


class ThumbnailMaker:
    """Draws mistakes of one data set; `image_path` says where the image of an id lies."""

    def __init__(self, image_path: ImagePath) -> None:
        self.image_path = image_path
        self._last: tuple[int, Image.Image] | None = None

    def data_uri(self, judgement: Judgement, table: DetectionTable, mistake: Mistake) -> str:
        """A JPEG as a data: URI; `table` has the mistake's detection. DataError if the image cannot be read."""
        picture = self._open(int(judgement.gt.image_ids[mistake.image]))
        shapes = _shapes(judgement, table, mistake)
        crop = _crop(picture.size, np.array([shape.box for shape in shapes]))
        buffer = io.BytesIO()
        _draw(picture, shapes, crop).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # thin coloured lines
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

    def _open(self, image_id: int) -> Image.Image:
        """The image; mistakes of one image often follow each other, so the last one is kept."""
        if self._last is None or self._last[0] != image_id:
            path = self.image_path(image_id)
            try:
                with open_image(path) as image:
                    self._last = (image_id, image.convert("RGB"))
            except (OSError, DataError) as error:
                raise DataError(f"image {image_id} cannot be read from {path} ({error}); pods_data doctor") from error
        return self._last[1]


def _shapes(judgement: Judgement, table: DetectionTable, mistake: Mistake) -> list[Shape]:
    shapes = []
    masks = needs_masks(judgement.task)
    if mistake.detection >= 0:
        row = table.take(np.array([mistake.detection]))
        x, y, w, h = (float(value) for value in row.boxes[0])
        mask = decode_rle(row.rles()[0]) if masks else None
        shapes.append(Shape((x, y, x + w, y + h), "", PREDICTION, mask))
    if mistake.annotation >= 0:
        x, y, w, h = (float(value) for value in judgement.gt.boxes[mistake.annotation])
        mask = decode_rle(judgement.gt.rle_dicts(np.array([mistake.annotation]))[0]) if masks else None
        shapes.append(Shape((x, y, x + w, y + h), "", TRUTH, mask))
    return shapes


def _crop(size: tuple[int, int], boxes: np.ndarray) -> tuple[int, int, int, int]:
    """A window (left, top, right, bottom) around all boxes, with context, inside the image."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = max(float((high - low).max()) * (1 + 2 * CONTEXT), SMALLEST_CROP)
    centre, extent = (low + high) / 2, np.array(size)
    start = np.clip(centre - side / 2, 0, np.maximum(extent - side, 0))
    end = np.minimum(start + side, extent)
    left, top = np.floor(start).astype(int).tolist()
    right, bottom = np.maximum(np.ceil(end).astype(int), [left + 1, top + 1]).tolist()
    return left, top, right, bottom


def _draw(picture: Image.Image, shapes: list[Shape], crop: tuple[int, int, int, int]) -> Image.Image:
    left, top, right, bottom = crop
    moved = [
        Shape(
            (shape.box[0] - left, shape.box[1] - top, shape.box[2] - left, shape.box[3] - top),
            "",
            shape.colour,
            None if shape.mask is None else shape.mask[top:bottom, left:right],
        )
        for shape in shapes
    ]
    drawn = draw_shapes(picture.crop(crop), moved, SIDE)
    drawn.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return drawn
