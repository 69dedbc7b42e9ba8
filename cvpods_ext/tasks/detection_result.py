"""The objects that a detector found in one picture.

Shapes: N = detections, H, W = pixels of the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from cvpods_ext.evaluation.detection.coco_json import result_of
from cvpods_ext.evaluation.detection.shard_writer import to_rows
from cvpods_ext.structures import Detections
from cvpods_ext.tasks.detection_drawing import draw_detections
from cvpods_ext.tasks.drawing import decode_rle
from cvpods_ext.tasks.image_result import ImageResult, ReadPixels

SHOWN_FROM = 0.3  # score
MOST_DRAWN = 100


class DetectionResult(ImageResult):
    """Detections in falling score: `boxes` (N, 4) float32 XYXY in pixels, `scores` (N,), `labels` (N,) from 0.

    `names` and `category_ids` (N,) are those of the labels in the annotation file.
    """

    columns = ("category_id", "name", "score", "x1", "y1", "x2", "y2")

    def __init__(
        self,
        source: str,
        read_pixels: ReadPixels,
        detections: Detections,
        class_names: Sequence[str],
        category_ids: Sequence[int],
    ) -> None:
        super().__init__(source, read_pixels)
        self._detections, self._class_names, self._category_ids = detections, class_names, category_ids
        self.boxes: np.ndarray = detections.boxes.detach().cpu().numpy().astype(np.float32).reshape(-1, 4)
        self.scores: np.ndarray = detections.scores.detach().cpu().numpy().astype(np.float32)
        self.labels: np.ndarray = detections.labels.detach().cpu().numpy()
        self.names = [class_names[label] for label in self.labels.tolist()]
        self.category_ids = np.asarray(category_ids, np.int64)[self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def masks(self) -> np.ndarray | None:
        """(N, H, W) bool, None where the model has none; decoded when asked for."""
        rles = self._detections.masks
        if rles is None:
            return None
        return np.stack([decode_rle(rle) for rle in rles]) if rles else np.zeros((0, *self._detections.size), bool)

    def plot(self, score_threshold: float | None = None) -> Image.Image:
        """Boxes, masks, names and scores of at least `score_threshold` (0.3)."""
        threshold = SHOWN_FROM if score_threshold is None else score_threshold
        return draw_detections(self.pixels, self._detections, self._class_names, threshold, MOST_DRAWN)

    def rows(self) -> list[dict[str, Any]]:
        """One for each detection."""
        numbers = (self.category_ids.tolist(), self.names, self.scores.tolist(), *self.boxes.T.tolist())
        return [dict(zip(self.columns, found, strict=True)) for found in zip(*numbers, strict=True)]

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Entries of a COCO or LVIS results json, the numbers those of `pods_test --export` to the last digit."""
        rows = to_rows(self._detections, self._category_ids).to_pylist()
        return [result_of({**row, "image_id": image_id}) for row in rows]

    def to_json(self, image_id: int) -> list[dict[str, Any]]:
        """As `to_coco`."""
        return self.to_coco(image_id)

    def summary(self, score_threshold: float | None = None) -> str:
        """How many of which class, most frequent first."""
        threshold = SHOWN_FROM if score_threshold is None else score_threshold
        sure = [name for name, score in zip(self.names, self.scores.tolist(), strict=True) if score >= threshold]
        return ", ".join(f"{count} {name}" for name, count in Counter(sure).most_common()) or "nothing"
