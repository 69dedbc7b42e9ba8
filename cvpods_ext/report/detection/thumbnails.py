"""Small pictures of single errors: what was annotated in green, what was predicted in red, with some surroundings."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.report.detection.error_examples import ErrorExample, MatchedRun
from cvpods_ext.report.thumbnails import SIDE, Opener, data_uri, window
from cvpods_ext.tasks.drawing import Shape, decode_rle, draw_shapes

TRUTH, PREDICTION = (0, 170, 60), (225, 30, 40)


def thumbnail(opener: Opener, run: MatchedRun, table: DetectionTable, example: ErrorExample) -> str:
    """A JPEG as a data: URI; `table` has the example's detection. DataError if the image cannot be read."""
    picture = opener.open(int(run.gt.image_ids[example.image]))
    shapes = _shapes(run, table, example)
    return data_uri(_draw(picture, shapes, window(picture.size, np.array([shape.box for shape in shapes]))))


def _shapes(run: MatchedRun, table: DetectionTable, example: ErrorExample) -> list[Shape]:
    shapes = []
    masks = needs_masks(run.matched_by)
    if example.detection >= 0:
        row = table.take(np.array([example.detection]))
        x, y, w, h = (float(value) for value in row.boxes[0])
        mask = decode_rle(row.rles()[0]) if masks else None
        shapes.append(Shape((x, y, x + w, y + h), "", PREDICTION, mask))
    if example.annotation >= 0:
        x, y, w, h = (float(value) for value in run.gt.boxes[example.annotation])
        mask = decode_rle(run.gt.rle_dicts(np.array([example.annotation]))[0]) if masks else None
        shapes.append(Shape((x, y, x + w, y + h), "", TRUTH, mask))
    return shapes


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
    return draw_shapes(picture.crop(crop), moved, SIDE)
