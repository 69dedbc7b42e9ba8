"""Image classification: one class for an image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data import classification, classification_doctor, classification_statistics, loader
from cvpods_ext.data.classification_source import source, to_test_sample
from cvpods_ext.data.dataset import InferenceDataset, TrainingDataset
from cvpods_ext.data.findings import Finding
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.classification import METRICS
from cvpods_ext.modeling.classification.classifier import ImageModel
from cvpods_ext.structures import Batch
from cvpods_ext.structures.classification import ClassScores, ImageClass
from cvpods_ext.tasks.classification_drawing import NEUTRAL, with_caption
from cvpods_ext.tasks.classification_predictions import NAMED, ClassificationPredictions
from cvpods_ext.tasks.classification_result import ClassificationResult
from cvpods_ext.tasks.image_result import ReadPixels
from cvpods_ext.tasks.task import Describe, Draw, Prepare, Task


class Classification(Task):
    """Targets are `structures.classification.ImageClass`, predictions `ClassScores`, on disk the highest of them."""

    metrics = METRICS
    evaluation_settings = ("test.many_above", "test.few_below", "test.resamples")

    def check(self, experiment: Experiment) -> None:
        """The training images can be listed, and their augmentation is known."""
        data = classification_config(experiment).data
        source(classification.load(data, data.train, experiment.folder), data).training.prepare()

    def check_test(self, experiment: Experiment) -> None:
        """The test images can be listed, and are of classes that the training set has."""
        data = classification_config(experiment).data
        classification.load(data, data.test, experiment.folder)
        classification_statistics.training_counts(data, experiment.folder)  # the groups are made by these

    def examine(self, experiment: Experiment, decode: bool) -> Iterator[Finding]:
        """Files, classes, and what the sampler repeats."""
        data = classification_config(experiment).data
        return classification_doctor.examine_experiment(data, experiment.folder, decode=decode)

    def training_batches(
        self,
        experiment: Experiment,
        model: nn.Module,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        skipped_file: Path | None = None,
    ) -> Iterator[Batch]:
        """Augmented crops of one size, in the order that `data.sampler` asks for."""
        config = classification_config(experiment)
        data = config.data
        dataset = classification.load(data, data.train, experiment.folder)
        positions = loader.limited(self._spread(len(dataset), data.max_images), data)
        samples = TrainingDataset(source(dataset, data), positions, config.seed, loader.patience(len(positions)))
        sampler = loader.sampler(data, len(positions), partial(classification_statistics.pairs, dataset, positions))
        order = loader.batch_order(config, sampler, None, start_iteration, rank, world_size)
        return loader.training_batches(samples, order, data.workers, skipped_file)

    @staticmethod
    def _spread(num_images: int, limit: int) -> np.ndarray:
        """Positions of the images; with a limit, spread evenly, since folders of a class follow one another."""
        if not limit or limit >= num_images:
            return np.arange(num_images)
        return np.linspace(0, num_images - 1, limit).astype(np.int64)

    def training_set_sha256(self, experiment: Experiment) -> str:
        """Of the names of all files, their labels and the classes; no image is read."""
        data = classification_config(experiment).data
        return classification.load(data, data.train, experiment.folder).sha256()

    def class_keys(self, experiment: Experiment) -> list[str]:
        """Names of folders, or numbers."""
        return [each.key for each in classification.classes(classification_config(experiment).data, experiment.folder)]

    def test_set(self, experiment: Experiment) -> str:
        """The name of a known data set, that of the folder or list of one's own."""
        data = classification_config(experiment).data
        if isinstance(data.test, str):
            return data.test
        return Path(data.test.annotations).stem if data.test.annotations else Path(data.test.images).name

    def test_set_sha256(self, experiment: Experiment) -> str:
        """Of the names of all files, their labels and the classes; no image is read."""
        data = classification_config(experiment).data
        return classification.load(data, data.test, experiment.folder).sha256()

    def test_files(self, experiment: Experiment) -> list[Path]:
        """Of the folders or the list."""
        data = classification_config(experiment).data
        dataset = classification.load(data, data.test, experiment.folder)
        return [dataset.image_path(i) for i in self._spread(len(dataset), data.max_images).tolist()]

    def test_batches(
        self, experiment: Experiment, rank: int, world_size: int, done: Collection[int]
    ) -> loader.InferenceBatches:
        """Batches of inputs, which all have one size."""
        config = classification_config(experiment)
        data = config.data
        dataset = classification.load(data, data.test, experiment.folder)
        positions = self._spread(len(dataset), data.max_images)
        share = loader.share(positions, dataset.image_ids, done, rank, world_size)
        samples = InferenceDataset(source(dataset, data), share)
        return loader.test_batches(samples, data.workers, config.test.images_per_batch)

    def raw_predictions(self, model: nn.Module, batch: Batch) -> Sequence[Tensor | ClassScores]:
        """Scores that still lie on the device."""
        return getattr(model, "predict", model)(batch)

    def finish(self, raw: Tensor | ClassScores, target: ImageClass) -> ClassScores:  # type: ignore[override]
        """The scores on the host."""
        return raw if isinstance(raw, ClassScores) else ClassScores(raw.cpu(), target.image_id)

    def drawer(self, experiment: Experiment) -> Draw:
        """The class, or the highest scores, below the image."""
        data = classification_config(experiment).data
        names = [each.name for each in classification.classes(data, experiment.folder)]

        def draw(image: Tensor, shown: ImageClass | ClassScores) -> np.ndarray:
            if isinstance(shown, ImageClass):
                lines = [(f"is: {names[shown.label]}", NEUTRAL)]
            else:
                found, order = shown.scores.cpu(), shown.scores.cpu().argsort(descending=True)[:NAMED].tolist()
                lines = [(f"{100 * float(found[label]):.0f} % {names[label]}", NEUTRAL) for label in order]
            return np.asarray(with_caption(image, lines, data.channels))

        return draw

    def prepare(self, experiment: Experiment) -> Prepare:
        """Resized and cropped as for a test."""
        return partial(to_test_sample, data=classification_config(experiment).data)

    def describe(self, experiment: Experiment) -> Describe:
        """Scores with the classes of the training set."""
        data = classification_config(experiment).data
        names = [each.name for each in classification.classes(data, experiment.folder)]

        def describe(found: ClassScores, source: str, read_pixels: ReadPixels) -> ClassificationResult:
            return ClassificationResult(source, read_pixels, found, names)

        return describe

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the head sees."""
        return model.extract_feat(batch.images) if isinstance(model, ImageModel) else super().features(model, batch)

    def predictions(self, experiment: Experiment, folder: Path) -> ClassificationPredictions:
        """Shards of scores in `folder`."""
        config = classification_config(experiment)
        dataset = classification.load(config.data, config.data.test, experiment.folder)
        return ClassificationPredictions(config, dataset, experiment, folder)

    def prediction_settings(self, experiment: Experiment) -> dict[str, Any]:
        """How a test image is resized and cropped."""
        data = classification_config(experiment).data
        return {name: getattr(data, name) for name in ("image_side", "test_resize", "crop_ratio")}

    def pack_target(self, target: ImageClass) -> dict[str, Any]:
        """The fields of the class."""
        return vars(target)

    def unpack_target(self, packed: Mapping[str, Any]) -> ImageClass:
        """The class."""
        return ImageClass(**packed)


def classification_config(experiment: Experiment) -> ClassificationConfig:
    """The config of an experiment of this task; ConfigError for one of another task."""
    if not isinstance(experiment.config, ClassificationConfig):
        raise ConfigError(
            f"{experiment.folder}: config.py holds a {type(experiment.config).__name__} where the task classification "
            "needs a ClassificationConfig"
        )
    return experiment.config


TASK = Classification()
