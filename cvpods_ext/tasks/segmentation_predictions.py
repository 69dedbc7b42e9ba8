"""Predicted label maps of one test: written while it runs, evaluated, drawn, handed to an evaluation server."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.data.segmentation import LabelledImages, read_labels
from cvpods_ext.data.segmentation_source import SegmentationImages
from cvpods_ext.data.segmentation_statistics import frequency_groups
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.segmentation.evaluate import evaluate
from cvpods_ext.evaluation.segmentation.label_maps import LabelMapFolder
from cvpods_ext.runtime.files import atomic_path, sha256_of
from cvpods_ext.structures.segmentation import PredictedLabels
from cvpods_ext.tasks.segmentation_drawing import draw_labels
from cvpods_ext.tasks.task import Evaluation, Export, Imported, Picture, Predictions


class SegmentationPredictions(Predictions):
    """PNGs, see `evaluation.segmentation.label_maps`."""

    def __init__(
        self, config: SegmentationConfig, dataset: LabelledImages, experiment: Experiment, folder: Path
    ) -> None:
        super().__init__(experiment, folder)
        self._config, self._dataset = config, dataset
        names = {position + 1: dataset.stem(position) for position in range(len(dataset))}
        self._maps = LabelMapFolder(folder, names, dataset.first_value)

    def completed(self) -> set[int]:
        """Ids of the images that have a PNG."""
        return set(self._maps.completed())

    def settings(self) -> list[Mapping[str, Any]]:
        """Those of the folder, if it has any."""
        return self._maps.settings()

    @contextmanager
    def writer(self, rank: int, settings: Mapping[str, Any]) -> Iterator[_Writer]:
        """Every image is a file of its own, whatever process writes it."""
        self._maps.claim(settings)
        yield _Writer(self._maps)

    def evaluate(self, families: Sequence[str]) -> Evaluation:
        """By one confusion matrix; frequency groups by pixels of the training set."""
        test, data = self._config.test, self._config.data
        groups = frequency_groups(data, self.experiment.folder, test.rare_below, test.frequent_from)
        metrics, settings = evaluate(self._dataset, self._maps, families, groups, test.resamples)
        limits = {"rare_below": test.rare_below, "frequent_from": test.frequent_from}
        return Evaluation(metrics, {**settings, "frequency_by": "share of the labelled training pixels", **limits})

    def pictures(self, count: int) -> list[Picture]:
        """Images spread evenly over those that are predicted, ground truth before prediction."""
        done = sorted(self.completed())
        if not done or not count:
            return []
        chosen = np.unique(np.linspace(0, len(done) - 1, count).astype(int))
        return [picture for i in chosen.tolist() for picture in self._truth_and_prediction(done[i])]

    def _truth_and_prediction(self, image_id: int) -> tuple[Picture, Picture]:
        position, names = image_id - 1, [each.name for each in self._dataset.classes]
        truth = self._dataset.read_labels(position)
        size = (truth.shape[0], truth.shape[1])
        image = SegmentationImages(self._dataset, "RGB").read_image(position, size)
        predicted = self._maps.read(image_id, size, len(names))
        return (
            Picture(f"{self._dataset.stem(position)}: ground truth", np.asarray(draw_labels(image, truth, names))),
            Picture("prediction", np.asarray(draw_labels(image, predicted, names))),
        )

    def import_from(self, source: Path) -> Imported:
        """From a folder of PNGs with the data set's own values, one for each image that is to be evaluated."""
        if not source.is_dir():
            raise DataError(f"{source} is not a folder of label maps (PNG)")
        files = {i + 1: source / f"{self._dataset.stem(i)}.png" for i in range(len(self._dataset))}
        files = {image_id: file for image_id, file in files.items() if file.is_file()}
        if not files:
            raise DataError(f"{source} holds no PNG named like an image of {self._dataset.name}")
        digest = hashlib.sha256("".join(sha256_of(file) for file in files.values()).encode())
        shutil.rmtree(self.folder, ignore_errors=True)
        self._maps.claim({"imported": digest.hexdigest()})
        for image_id, file in files.items():
            labels = read_labels(file, self._dataset.num_classes, self._dataset.reduce_zero_label)
            self._maps.write(image_id, labels)
        return Imported(digest.hexdigest(), self._config.test.metrics)

    def exports(self) -> Mapping[str, Export]:
        """A zip of the PNGs, as the server of ADE20K takes it."""
        return {"results": Export(self._export_zip, ".zip")}

    def _export_zip(self, file: Path) -> int:
        if file.suffix.lower() != ".zip":
            raise ConfigError(f"--export {file}: label maps are exported as a zip; give a name that ends in .zip")
        done = sorted(self.completed())
        with atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for image_id in done:
                archive.write(self._maps.path(image_id), f"{self._dataset.stem(image_id - 1)}.png")
        return len(done)


class _Writer:
    """Writes label maps as they come."""

    def __init__(self, maps: LabelMapFolder) -> None:
        self._maps = maps

    def add(self, prediction: PredictedLabels) -> None:
        """Write the label map of one image."""
        self._maps.write(prediction.image_id, prediction.labels.numpy())
