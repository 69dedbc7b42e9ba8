"""The classes of the pixels of one picture.

Shapes: H, W = pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from cvpods_ext.structures.segmentation import PredictedLabels
from cvpods_ext.tasks.drawing import label_colour
from cvpods_ext.tasks.image_result import ImageResult, ReadPixels
from cvpods_ext.tasks.segmentation_drawing import draw_labels

NAMED = 5  # classes in a summary


class SegmentationResult(ImageResult):
    """`labels` (H, W) uint8, positions in `class_names`."""

    columns = ("label", "name", "pixels", "share")

    def __init__(
        self, source: str, read_pixels: ReadPixels, prediction: PredictedLabels, class_names: Sequence[str]
    ) -> None:
        super().__init__(source, read_pixels)
        self.labels: np.ndarray = prediction.labels.detach().cpu().numpy().astype(np.uint8)
        self.class_names = list(class_names)

    def plot(self, score_threshold: float | None = None) -> Image.Image:
        """The label map over the picture, a legend of the largest classes below."""
        return draw_labels(self.pixels, self.labels, self.class_names)

    def rows(self) -> list[dict[str, Any]]:
        """The classes that occur, with the most pixels first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        order = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]
        return [
            {
                "label": label,
                "name": self.class_names[label],
                "pixels": int(counts[label]),
                "share": float(counts[label] / self.labels.size),
            }
            for label in order
        ]

    def to_json(self, image_id: int) -> list[dict[str, Any]]:
        """The rows under the id; the label map itself is a picture, see `images`."""
        return [{"image_id": image_id, **row} for row in self.rows()]

    def images(self) -> Mapping[str, Image.Image]:
        """The label map as a palette PNG, whose values are the labels."""
        label_map = Image.fromarray(self.labels, mode="P")
        label_map.putpalette([part for label in range(len(self.class_names)) for part in label_colour(label)])
        return {"labels": label_map}

    def summary(self, score_threshold: float | None = None) -> str:
        """The largest classes and their shares."""
        return ", ".join(f"{row['name']} {100 * row['share']:.0f} %" for row in self.rows()[:NAMED])
