"""Pictures of what was annotated and what was found: masks, boxes, class names and scores. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from cvpods_ext.tasks.drawing import Shape, decode_rle, draw_shapes, label_colour, to_picture

if TYPE_CHECKING:
    from torch import Tensor

    from cvpods_ext.structures import Detections, Targets


def draw_detections(
    image: Tensor | np.ndarray,
    detections: Detections,
    class_names: Sequence[str],
    score_threshold: float = 0.3,
    max_boxes: int = 30,
    channels: Literal["RGB", "BGR"] = "RGB",
) -> Image.Image:
    """Draw the best `max_boxes` detections that score at least `score_threshold` on a (3, H, W) uint8 image.

    The image must be the one whose pixels the boxes are in: the original, not the resized one.
    """
    scores = np.asarray(detections.scores.detach().cpu())
    order = np.argsort(-scores, kind="stable")[:max_boxes]
    order = order[scores[order] >= score_threshold]
    boxes, labels = detections.boxes.detach().cpu().tolist(), detections.labels.tolist()
    shapes = [
        Shape(
            box=tuple(boxes[i]),
            caption=f"{class_names[labels[i]]} {scores[i]:.2f}",
            colour=label_colour(labels[i]),
            mask=decode_rle(detections.masks[i]) if detections.masks is not None else None,
        )
        for i in order.tolist()
    ]
    return draw_shapes(to_picture(image, channels), shapes)


def draw_targets(
    image: Tensor | np.ndarray,
    targets: Targets,
    class_names: Sequence[str],
    channels: Literal["RGB", "BGR"] = "RGB",
) -> Image.Image:
    """Draw all annotated objects on the (3, H, W) uint8 image that `targets` belong to."""
    boxes, labels = targets.boxes.detach().cpu().tolist(), targets.labels.tolist()
    masks = None if targets.masks is None else targets.masks.to_bitmasks(targets.size).bitmaps.cpu().numpy()
    shapes = [
        Shape(
            box=tuple(box),
            caption=str(class_names[label]),
            colour=label_colour(label),
            mask=None if masks is None else masks[i],
        )
        for i, (box, label) in enumerate(zip(boxes, labels, strict=True))
    ]
    return draw_shapes(to_picture(image, channels), shapes)
