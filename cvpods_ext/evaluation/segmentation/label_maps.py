"""Predicted label maps on disk: one PNG an image, written while a test runs.

A PNG is complete or absent, so an interrupted test goes on with the images that have none, on any number of
processes. Its values are those of the data set's own label files; for ADE20K the folder is what its server takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import atomic_path, write_json
from cvpods_ext.runtime.image_file import open_image

SETTINGS = "settings.json"


@dataclass(frozen=True)
class LabelMapKind:
    """Predictions as a folder of PNGs beside what they were made with."""

    stem: str = "label maps"

    def settings(self, folder: Path) -> list[Mapping[str, Any]]:
        """What the label maps in `folder` were made with, [] if nobody says."""
        try:
            return [json.loads((folder / SETTINGS).read_text(encoding="utf-8"))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / SETTINGS} cannot be read ({error}); delete {folder}") from None


LABEL_MAPS = LabelMapKind()


class LabelMapFolder:
    """The predictions of one test: `names` are the images' names without suffix by image id, `first` the PNG value
    of class 0.

    `settings` is everything that decides predictions, as JSON; a folder made with others is a DataError, since the
    mixture would be evaluated as one result.
    """

    def __init__(self, folder: Path, names: Mapping[int, str], first: int = 0) -> None:
        self.folder, self._names, self._first = folder, names, first

    def path(self, image_id: int) -> Path:
        """Where the prediction of an image lies."""
        return self.folder / f"{self._names[image_id]}.png"

    def settings(self) -> list[Mapping[str, Any]]:
        """The settings that the predictions were made with, [] if there are none."""
        return LABEL_MAPS.settings(self.folder) or ([{}] if self.completed() else [])

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Remember the settings, or DataError if the folder holds predictions made with others."""
        wanted = json.loads(json.dumps(settings))
        if any(found != wanted for found in self.settings()):
            raise DataError(
                f"{self.folder} holds predictions that were made with other settings: {self.settings()[0]}, now "
                f"{wanted}. Delete the folder to test anew, or restore those settings to continue."
            )
        write_json(self.folder / SETTINGS, wanted)

    def completed(self) -> list[int]:
        """Ids of the images that are predicted."""
        return [image_id for image_id in self._names if self.path(image_id).is_file()]

    def write(self, image_id: int, labels: np.ndarray) -> None:
        """Write the uint8 label map (H, W) of one image."""
        with atomic_path(self.path(image_id)) as temporary:
            Image.fromarray(labels + np.uint8(self._first)).save(temporary, format="PNG", compress_level=6)

    def read(self, image_id: int, size: tuple[int, int], num_classes: int) -> np.ndarray:
        """uint8 (H, W) in [0, num_classes); DataError if it cannot be read or has another size or other values."""
        path = self.path(image_id)
        try:
            with open_image(path, formats=("PNG",)) as file:
                labels = np.asarray(file)
        except (OSError, DataError) as error:
            raise DataError(f"{path} cannot be read ({error}); delete it and run pods_test again") from None
        if labels.shape != size or labels.dtype != np.uint8:
            raise DataError(
                f"{path} is {labels.dtype} of {labels.shape}, but the image's labels are uint8 of {size}; "
                "delete it and run pods_test again"
            )
        labels = labels - np.uint8(self._first)  # 0 becomes 255, which is refused with the rest
        if labels.size and int(labels.max()) >= num_classes:
            value = int(labels.max()) + self._first
            raise DataError(f"{path} has the value {value % 256}, which is none of {num_classes} classes")
        return labels
