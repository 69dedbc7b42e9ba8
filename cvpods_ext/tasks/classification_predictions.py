"""Scores of one test: written while it runs, evaluated, drawn, listed for others."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data import classification_statistics, images
from cvpods_ext.data.classification import LabelledPhotos
from cvpods_ext.evaluation.classification import scores
from cvpods_ext.evaluation.classification.evaluate import evaluate
from cvpods_ext.evaluation.classification.metrics import FAMILY
from cvpods_ext.evaluation.classification.scores import SCORES, TopScores
from cvpods_ext.evaluation.shards import ShardWriter
from cvpods_ext.runtime.files import atomic_path
from cvpods_ext.runtime.text import csv_cell
from cvpods_ext.structures.classification import ClassScores
from cvpods_ext.tasks.classification_drawing import NEUTRAL, RIGHT, WRONG, with_caption
from cvpods_ext.tasks.task import Evaluation, Export, Picture, Predictions

NAMED = 3  # classes below a picture


class ClassificationPredictions(Predictions):
    """Parquet shards, see `evaluation.classification.scores`."""

    def __init__(
        self, config: ClassificationConfig, dataset: LabelledPhotos, experiment: Experiment, folder: Path
    ) -> None:
        super().__init__(experiment, folder)
        self._config, self._dataset = config, dataset

    def completed(self) -> set[int]:
        """Ids of the images that some shard names."""
        return SCORES.completed_image_ids(self.folder)

    def set_damaged_aside(self) -> list[Path]:
        """Shards that were cut short."""
        return SCORES.set_damaged_aside(self.folder)

    def settings(self) -> list[Mapping[str, Any]]:
        """From the metadata of every shard."""
        return list(SCORES.settings(self.folder))

    @contextmanager
    def writer(self, rank: int, settings: Mapping[str, Any]) -> Iterator[_Writer]:
        """Shards of one process."""
        with ShardWriter(SCORES, self.folder, rank, dict(settings)) as shards:
            yield _Writer(shards)

    def evaluate(self, families: Sequence[str]) -> Evaluation:
        """Accuracies, and those of the groups of classes by training images."""
        data, test, start = self._config.data, self._config.test, self.experiment.folder
        groups = classification_statistics.frequency_groups(data, test, start)
        counts = classification_statistics.training_counts(data, start)
        metrics, settings = evaluate(self._dataset, self.folder, groups, counts, test.resamples)
        limits = {"many_above": test.many_above, "few_below": test.few_below}
        return Evaluation({FAMILY: metrics} if FAMILY in families else {}, {**settings, **limits})

    def pictures(self, count: int) -> list[Picture]:
        """Images spread evenly over those that are predicted, with their class and the highest scores."""
        if not count or not SCORES.files(self.folder):
            return []
        found = self._scores()
        chosen = np.unique(np.linspace(0, len(found.image_ids) - 1, count).astype(int))
        return [self._picture(found, row) for row in chosen.tolist()]

    def _picture(self, found: TopScores, row: int) -> Picture:
        position = int(found.image_ids[row]) - 1
        truth, classes = int(self._dataset.labels[position]), self._dataset.classes
        lines = [(f"is: {classes[truth].name}", NEUTRAL)]
        for label, score in zip(found.labels[row, :NAMED].tolist(), found.scores[row].tolist(), strict=False):
            lines.append((f"{100 * score:.0f} % {classes[label].name}", RIGHT if label == truth else WRONG))
        photo = images.read_photo(self._dataset.image_path(position))
        return Picture(self._dataset.files[position], np.asarray(with_caption(photo, lines)))

    def exports(self) -> Mapping[str, Export]:
        """A CSV with a line an image: its file, and the class with the highest score."""
        return {"results": Export(self._export_csv, ".csv")}

    def _export_csv(self, file: Path) -> int:
        found, classes = self._scores(), self._dataset.classes
        with atomic_path(file) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "label", "class", "score"])
            for row, image_id in enumerate(found.image_ids.tolist()):
                label = int(found.labels[row, 0])
                name = csv_cell(classes[label].name)
                path = csv_cell(self._dataset.files[int(image_id) - 1])
                writer.writerow([path, label, name, repr(float(found.scores[row, 0]))])
        return len(found.image_ids)

    def _scores(self) -> TopScores:
        return scores.read(self.folder, len(self._dataset), len(self._dataset.classes))


class _Writer:
    """Keeps the highest scores of every image."""

    def __init__(self, shards: ShardWriter) -> None:
        self._shards = shards

    def add(self, prediction: ClassScores) -> None:
        """Append the scores of one image."""
        self._shards.append(prediction.image_id, scores.to_rows(prediction))
