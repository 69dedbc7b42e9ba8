"""What methods ask about a training set beside the images of each class: instances, its size, where boxes lie.

Kept apart from `num_shots`, whose files do not say what they count.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cvpods_ext.config.schema import Data
from cvpods_ext.data import annotations as annotation_files
from cvpods_ext.data import catalog, category_tables, statistics
from cvpods_ext.data.annotations import Annotations

if TYPE_CHECKING:
    import torch

# The N of a frequency, from https://www.lvisdataset.org: v0.5 leaves out images without annotations.
LVIS_IMAGES = {"lvis_v1_train": 100_170, "lvis_v0.5_train": 56_740}


def instance_counts(data: Data, start: Path | str) -> torch.Tensor:
    """(num_classes,) float32 number of annotated objects of each class, from the shipped table or the training json."""
    import torch  # deferred, as in num_shots

    table = catalog.known(data.train).table if isinstance(data.train, str) else ""
    counts = np.array([category.instance_count for category in category_tables.load(table)] if table else [-1])
    if (counts < 0).any():
        counts = statistics.class_counts(_annotations(data, start), "instance")
    return torch.from_numpy(counts.astype(np.float32))


def frequency_groups(data: Data, start: Path | str) -> np.ndarray:
    """(num_classes,) of "r", "c", "f": what the data set says, else by its numbers of training images."""
    stated = np.array([category.frequency for category in catalog.categories(data.train, start)])
    if (stated != "").all():
        return stated
    return statistics.frequency_groups(statistics.class_counts(_annotations(data, start)))


def num_images(data: Data, start: Path | str) -> int:
    """Training images that frequencies refer to; of data without a known number, the annotated ones."""
    if isinstance(data.train, str) and data.train in LVIS_IMAGES:
        return LVIS_IMAGES[data.train]
    return len(statistics.annotated_images(_annotations(data, start)))


def box_centres(data: Data, start: Path | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres (M, 2) float64 in [0, 1] of width and height, and labels (M,) int64, of all boxes that are not crowds.

    Reads the training json, which must therefore be there even when a model is only built.
    """
    import torch

    found = _annotations(data, start)
    index, boxes = found.index, found.boxes()
    kept = ~index.crowd
    sides = np.stack((found.widths, found.heights), axis=1)[index.image[kept]]
    centres = (boxes[kept, :2] + boxes[kept, 2:]) / 2 / sides.astype(np.float64)
    return torch.from_numpy(centres), torch.from_numpy(index.label[kept].astype(np.int64))


def _annotations(data: Data, start: Path | str) -> Annotations:
    return annotation_files.load(catalog.resolve(data.train, start))
