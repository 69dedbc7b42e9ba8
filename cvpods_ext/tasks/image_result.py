"""What a model found in one picture: numbers, a drawing, rows of a table. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from cvpods_ext.runtime.frames import data_frame

ReadPixels = Callable[[], np.ndarray]
"""Gives the picture as (3, H, W) uint8 in RGB; called only when something is drawn."""


class ImageResult(ABC):
    """Base of the results of every task; `source` says which picture it is, a path or a number."""

    columns: ClassVar[tuple[str, ...]]
    """Keys of the rows, in order."""

    def __init__(self, source: str, read_pixels: ReadPixels) -> None:
        self.source, self._read_pixels = source, read_pixels

    @cached_property
    def pixels(self) -> np.ndarray:
        """The picture, (3, H, W) uint8 in RGB. DataError if its file has vanished since."""
        return self._read_pixels()

    @abstractmethod
    def plot(self, score_threshold: float | None = None) -> Image.Image:
        """The picture with what was found; `score_threshold` where the task has scores to cut at."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """What was found as rows of a table, keys as in `columns`."""

    @abstractmethod
    def to_json(self, image_id: int) -> list[dict[str, Any]]:
        """What was found in the layout that the field exchanges, under this id."""

    @abstractmethod
    def summary(self, score_threshold: float | None = None) -> str:
        """A few words."""

    def images(self) -> Mapping[str, Image.Image]:
        """Further pictures that hold the result itself, by the ending of their file's name without suffix."""
        return {}

    def to_pandas(self) -> Any:
        """The rows as a pandas.DataFrame. ConfigError where pandas is not installed."""
        return data_frame(self.rows(), list(self.columns))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.source}: {self.summary()}>"
