"""The test set of an experiment in image classification as reports need it.

Shapes: K = classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.data import classification, classification_statistics
from cvpods_ext.data.classification import LabelledPhotos


@dataclass(frozen=True)
class ReportData:
    """Images and classes; (K,) many, medium or few; (K,) training images."""

    photos: LabelledPhotos
    groups: np.ndarray
    training_counts: np.ndarray

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return [each.name for each in self.photos.classes]


def open_data(config: ClassificationConfig, folder: Path) -> ReportData:
    """As seen from an experiment folder. Raises DataError for files that are absent or broken."""
    return ReportData(
        classification.load(config.data, config.data.test, folder),
        classification_statistics.frequency_groups(config.data, config.test, folder).groups,
        classification_statistics.training_counts(config.data, folder),
    )
