"""The class of one picture, under the names that users of mmpretrain know.

Shapes: K = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cvpods_ext.evaluation.classification.scores import highest
from cvpods_ext.structures.classification import ClassScores
from cvpods_ext.tasks.classification_drawing import NEUTRAL, with_caption
from cvpods_ext.tasks.image_result import ImageResult, ReadPixels

NAMED = 5  # classes in rows and pictures


class ClassificationResult(ImageResult):
    """`pred_scores` (K,) float32, and of the highest `pred_label`, `pred_score` and `pred_class`, its name."""

    columns = ("rank", "label", "name", "score")

    def __init__(
        self, source: str, read_pixels: ReadPixels, prediction: ClassScores, class_names: Sequence[str]
    ) -> None:
        super().__init__(source, read_pixels)
        self.pred_scores: np.ndarray = prediction.scores.detach().cpu().numpy().astype(np.float32)
        self._class_names, self._best = class_names, highest(self.pred_scores)
        self.pred_label = int(self._best[0])
        self.pred_score = float(self.pred_scores[self.pred_label])
        self.pred_class = class_names[self.pred_label]

    def plot(self, score_threshold: float | None = None) -> Image.Image:
        """The picture with its highest classes below."""
        lines = [(f"{100 * row['score']:.0f} % {row['name']}", NEUTRAL) for row in self.rows()]
        return with_caption(self.pixels, lines)

    def rows(self) -> list[dict[str, Any]]:
        """The five highest classes."""
        best = self._best[:NAMED].tolist()
        return [
            {"rank": rank, "label": label, "name": self._class_names[label], "score": float(self.pred_scores[label])}
            for rank, label in enumerate(best, 1)
        ]

    def to_json(self, image_id: int) -> list[dict[str, Any]]:
        """One entry with the fields of this class but all scores."""
        found = {"pred_label": self.pred_label, "pred_score": self.pred_score, "pred_class": self.pred_class}
        return [{"image_id": image_id, **found}]

    def summary(self, score_threshold: float | None = None) -> str:
        """Class and score."""
        return f"{self.pred_class} {self.pred_score:.2f}"
