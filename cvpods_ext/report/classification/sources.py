"""The test set of an experiment in image classification, and the scores behind a row of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.data import classification, classification_statistics
from cvpods_ext.data.classification import LabelledPhotos
from cvpods_ext.evaluation.classification import scores
from cvpods_ext.evaluation.classification.scores import SCORES, TopScores
from cvpods_ext.report.predictions_on_disk import with_predictions
from cvpods_ext.report.runs import Entry


@dataclass(frozen=True)
class TestSet:
    """Images and classes, and for K classes (K,) many, medium or few and training images."""

    photos: LabelledPhotos
    groups: np.ndarray
    training_counts: np.ndarray

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return [each.name for each in self.photos.classes]


@dataclass(frozen=True)
class ScoredRuns:
    """An experiment, its label, and the scores of its runs."""

    label: str
    runs: Sequence[TopScores]


def open_test_set(config: ClassificationConfig, folder: Path) -> TestSet:
    """As seen from an experiment folder. Raises DataError for files that are absent or broken."""
    return TestSet(
        classification.load(config.data, config.data.test, folder),
        classification_statistics.frequency_groups(config.data, config.test, folder).groups,
        classification_statistics.training_counts(config.data, folder),
    )


def runs_of(entries: Sequence[Entry], test_set: TestSet) -> list[ScoredRuns]:
    """The scores of all runs that are still on disk."""
    photos = test_set.photos
    return [
        ScoredRuns(label, [scores.read(folder, len(photos), len(photos.classes)) for folder in folders])
        for label, _, folders in with_predictions(entries, SCORES, photos.sha256(), photos.name)
    ]
