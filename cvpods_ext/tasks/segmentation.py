"""Semantic segmentation: images with label maps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationConfig
from cvpods_ext.data import loader, segmentation, segmentation_doctor, segmentation_statistics
from cvpods_ext.data.dataset import InferenceDataset, TrainingDataset
from cvpods_ext.data.doctor import Finding
from cvpods_ext.data.segmentation import LabelledImages
from cvpods_ext.data.segmentation_source import SegmentationImages, to_test_sample
from cvpods_ext.data.segmentation_transforms import training_transforms
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.segmentation import METRICS
from cvpods_ext.modeling.segmentation.segmentor import Segmentor
from cvpods_ext.structures import Batch
from cvpods_ext.structures.segmentation import LabelMap, PredictedLabels
from cvpods_ext.tasks.frequency_groups import PixelGroupMeter
from cvpods_ext.tasks.image_result import ReadPixels
from cvpods_ext.tasks.segmentation_drawing import draw_labels
from cvpods_ext.tasks.segmentation_predictions import SegmentationPredictions
from cvpods_ext.tasks.segmentation_result import SegmentationResult
from cvpods_ext.tasks.task import Describe, Draw, Prepare, Task


class Segmentation(Task):
    """Targets are `structures.segmentation.LabelMap`, predictions `PredictedLabels`, on disk one PNG an image."""

    metrics = METRICS
    evaluation_settings = ("test.rare_below", "test.frequent_from", "test.resamples")

    def check(self, experiment: Experiment) -> None:
        """The folders of the training set hold images with label maps."""
        load_checked(experiment, segmentation_config(experiment).data.train)

    def check_test(self, experiment: Experiment) -> None:
        """The folders of the test set hold images with label maps, of the classes that the training set has."""
        load_checked(experiment, segmentation_config(experiment).data.test)

    def examine(self, experiment: Experiment, decode: bool) -> Iterator[Finding]:
        """Folders, pairs, the values and sizes of all label maps, classes of both sets."""
        data = segmentation_config(experiment).data
        return segmentation_doctor.examine_experiment(data, experiment.folder, decode=decode)

    def training_batches(
        self,
        experiment: Experiment,
        model: nn.Module,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        skipped_file: Path | None = None,
    ) -> Iterator[Batch]:
        """Augmented crops, in the order that `data.sampler` asks for; repeat factors count classes by image."""
        config = segmentation_config(experiment)
        data, dataset = config.data, load_checked(experiment, config.data.train)
        positions = loader.limited(np.arange(len(dataset)), data)
        transforms = training_transforms(
            data.crop_side, short=data.train_short, long=data.train_long, flip=data.flip_probability
        )
        source = SegmentationImages(dataset, data.channels, transforms)
        samples = TrainingDataset(source, positions, config.seed, loader.patience(len(positions)))
        sampler = loader.sampler(data, len(positions), partial(segmentation_statistics.pairs, dataset, positions))
        order = loader.batch_order(config, sampler, None, start_iteration, rank, world_size)
        return loader.training_batches(samples, order, data.workers, skipped_file)

    def training_set_sha256(self, experiment: Experiment) -> str:
        """Of all label maps and the class names; every map is read."""
        return segmentation.sha256_of_labels(load_checked(experiment, segmentation_config(experiment).data.train))

    def class_keys(self, experiment: Experiment) -> list[str]:
        """Names."""
        return [each.name for each in segmentation.classes(segmentation_config(experiment).data, experiment.folder)]

    def test_set(self, experiment: Experiment) -> str:
        """The name of a known data set, that of the image folder of one's own."""
        test = segmentation_config(experiment).data.test
        return test if isinstance(test, str) else Path(test.images).name

    def test_set_sha256(self, experiment: Experiment) -> str:
        """Of all label maps and the class names."""
        return segmentation.sha256_of_labels(load_checked(experiment, segmentation_config(experiment).data.test))

    def test_files(self, experiment: Experiment) -> list[Path]:
        """Of the image folder."""
        data = segmentation_config(experiment).data
        dataset = load_checked(experiment, data.test)
        return [dataset.image_path(i) for i in loader.limited(np.arange(len(dataset)), data).tolist()]

    def test_batches(
        self, experiment: Experiment, rank: int, world_size: int, done: Collection[int]
    ) -> loader.InferenceBatches:
        """Batches of one image in its own size."""
        data = segmentation_config(experiment).data
        dataset = load_checked(experiment, data.test)
        positions = loader.limited(np.arange(len(dataset)), data)
        share = loader.share(positions, dataset.image_ids, done, rank, world_size)
        samples = InferenceDataset(SegmentationImages(dataset, data.channels), share)
        return loader.test_batches(samples, data.workers, 1)

    def raw_predictions(self, model: nn.Module, batch: Batch) -> Sequence[Tensor | PredictedLabels]:
        """Label maps that still lie on the device."""
        return getattr(model, "predict", model)(batch)

    def finish(self, raw: Tensor | PredictedLabels, target: LabelMap) -> PredictedLabels:  # type: ignore[override]
        """The label map in the image's original size, on the host."""
        return raw if isinstance(raw, PredictedLabels) else PredictedLabels(raw.cpu(), target.image_id)

    def in_input_frame(self, target: LabelMap) -> LabelMap:  # type: ignore[override]
        """The crop passes for the original image."""
        return replace(target, original_size=target.size)

    def meters(self, experiment: Experiment, model: nn.Module, device: torch.device) -> Sequence[PixelGroupMeter]:
        """How classes of few, more and most pixels are learned."""
        config = segmentation_config(experiment)
        if not isinstance(model, Segmentor):
            return []
        limits = (config.test.rare_below, config.test.frequent_from)
        groups = segmentation_statistics.frequency_groups(config.data, experiment.folder, *limits)
        return [PixelGroupMeter(model, groups, device)]

    def drawer(self, experiment: Experiment) -> Draw:
        """Classes in colours with a legend."""
        data = segmentation_config(experiment).data
        names = [each.name for each in segmentation.classes(data, experiment.folder)]

        def draw(image: Tensor, shown: LabelMap | PredictedLabels) -> np.ndarray:
            return np.asarray(draw_labels(image, shown.labels, names, channels=data.channels))

        return draw

    def prepare(self, experiment: Experiment) -> Prepare:
        """In its own size; the model resizes."""
        return to_test_sample

    def describe(self, experiment: Experiment) -> Describe:
        """Label maps with the classes of the training set."""
        names = [each.name for each in segmentation.classes(segmentation_config(experiment).data, experiment.folder)]

        def describe(found: PredictedLabels, source: str, read_pixels: ReadPixels) -> SegmentationResult:
            return SegmentationResult(source, read_pixels, found, names)

        return describe

    def predictions(self, experiment: Experiment, folder: Path) -> SegmentationPredictions:
        """PNGs in `folder`."""
        config = segmentation_config(experiment)
        return SegmentationPredictions(config, load_checked(experiment, config.data.test), experiment, folder)

    def prediction_settings(self, experiment: Experiment) -> dict[str, Any]:
        """In which sizes an image is looked at, and how windows lie on it."""
        config = segmentation_config(experiment)
        names = ("test_mode", "test_short", "test_long", "test_stride", "test_ratios", "test_flip")
        found = {name: getattr(config.model, name) for name in names}
        return {**found, "test_ratios": list(config.model.test_ratios), "crop_side": config.data.crop_side}

    def pack_target(self, target: LabelMap) -> dict[str, Any]:
        """The fields of the label map."""
        return vars(target)

    def unpack_target(self, packed: Mapping[str, Any]) -> LabelMap:
        """The label map."""
        return LabelMap(**packed)


def segmentation_config(experiment: Experiment) -> SegmentationConfig:
    """The config of an experiment of this task; ConfigError for one of another task."""
    if not isinstance(experiment.config, SegmentationConfig):
        raise ConfigError(
            f"{experiment.folder}: config.py holds a {type(experiment.config).__name__} where the task segmentation "
            "needs a SegmentationConfig"
        )
    return experiment.config


def load_checked(experiment: Experiment, dataset: str | LabelMapFiles) -> LabelledImages:
    """A data set whose classes are those of the training set; DataError otherwise."""
    data = segmentation_config(experiment).data
    loaded = segmentation.load(dataset, experiment.folder)
    if dataset != data.train:
        train = segmentation.load(data.train, experiment.folder)
        theirs, ours = ([each.name for each in one.classes] for one in (train, loaded))
        if theirs != ours:
            raise DataError(
                f"{loaded.name} has {len(ours)} classes, {train.name} {len(theirs)}, and they must be the same in the "
                f"same order; the first that differ: {_first_difference(theirs, ours)}"
            )
    return loaded


def _first_difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    longest = max(len(theirs), len(ours))
    pairs = ((one[i] if i < len(one) else "nothing" for one in (theirs, ours)) for i in range(longest))
    return next(f"{a!r} and {b!r}" for a, b in pairs if a != b)


TASK = Segmentation()
