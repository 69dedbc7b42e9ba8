"""Detection and instance segmentation on annotation files in COCO or LVIS layout."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data import detection_dataset, detection_loader, doctor
from cvpods_ext.data.catalog import categories, load, resolve
from cvpods_ext.data.doctor import Finding
from cvpods_ext.data.loader import InferenceBatches
from cvpods_ext.data.num_shots import frequency_groups
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection import METRICS
from cvpods_ext.evaluation.detection.evaluate import check_families
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.modeling.detection import postprocess
from cvpods_ext.modeling.detection.mask_head import MaskHead
from cvpods_ext.modeling.detection.postprocess import RawDetections
from cvpods_ext.runtime.files import sha256_of
from cvpods_ext.structures import Batch, BitMasks, Detections, PolygonMasks, Targets
from cvpods_ext.tasks.detection_drawing import draw_detections, draw_targets
from cvpods_ext.tasks.detection_predictions import DetectionPredictions
from cvpods_ext.tasks.detection_result import DetectionResult
from cvpods_ext.tasks.frequency_groups import GroupMeter
from cvpods_ext.tasks.image_result import ReadPixels
from cvpods_ext.tasks.task import Describe, Draw, Prepare, Task


class Detection(Task):
    """Targets are `structures.Targets`, predictions `structures.Detections`, on disk columnar shards."""

    metrics = METRICS
    evaluation_settings = ("test.evaluator", "test.max_detections")

    def check(self, experiment: Experiment) -> None:
        """The training set is sound and has its images; `training_batches` looks at the masks."""
        config = detection_config(experiment)
        check_families(config.test.metrics, config.test.evaluator)
        detection_loader.load_checked(config.data, config.data.train, experiment.folder, masks=False)

    def check_test(self, experiment: Experiment) -> None:
        """The test set is sound, has its images, as many classes as the training set, and what its metrics need."""
        config = detection_config(experiment)
        check_families(config.test.metrics, config.test.evaluator)
        of_masks = [name for name in config.test.metrics if needs_masks(name)]
        annotations = detection_loader.load_checked(config.data, config.data.test, experiment.folder, bool(of_masks))
        if of_masks and annotations.facts["annotations"] and not annotations.facts["has_masks"]:
            raise ConfigError(
                f"test.metrics has {', '.join(of_masks)}, but {annotations.paths.annotations} has no masks: set "
                "test.metrics=('bbox',), or test on a file with masks"
            )

    def examine(self, experiment: Experiment, decode: bool) -> Iterator[Finding]:
        """Files, categories, annotations, image paths and class counts."""
        data, problems = detection_config(experiment).data, 0
        for finding in doctor.examine_experiment(data, experiment.folder):
            problems += finding.level == "problem"
            yield finding
        if decode and not problems:
            for dataset in (data.train, data.test):
                yield from doctor.examine_pixels(dataset, experiment.folder)

    def training_batches(
        self,
        experiment: Experiment,
        model: nn.Module,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        skipped_file: Path | None = None,
    ) -> Iterator[Batch]:
        """Images with an annotation, in the order that `data.sampler` asks for.

        A network with a mask head is given objects with a usable mask, any other all objects with a usable box.
        """
        config, folder = detection_config(experiment), experiment.folder
        annotations = detection_loader.load_checked(config.data, config.data.train, folder, masks=has_mask_head(model))
        if annotations.masks and not annotations.facts["has_masks"]:
            raise ConfigError(
                f"{annotations.paths.annotations} has no masks, but the network of net.py has a mask head: build one "
                "without (faster_rcnn_fpn, cascade_rcnn_fpn), or train on a file with masks"
            )
        return detection_loader.batches_of(annotations, config, start_iteration, rank, world_size, skipped_file)

    def training_set_sha256(self, experiment: Experiment) -> str:
        """Of the annotation files; of a known content it is remembered, so that nothing is read."""
        return load(experiment.config.data.train, experiment.folder).sha256

    def class_keys(self, experiment: Experiment) -> list[str]:
        """Ids and names."""
        return [f"{one.id} {one.name}" for one in categories(experiment.config.data.train, experiment.folder)]

    def test_set(self, experiment: Experiment) -> str:
        """The name of a known data set, the stem of the annotation file of one's own."""
        return resolve(experiment.config.data.test, experiment.folder).name

    def test_set_sha256(self, experiment: Experiment) -> str:
        """Of the annotation file."""
        return sha256_of(resolve(experiment.config.data.test, experiment.folder).annotations)

    def test_files(self, experiment: Experiment) -> list[Path]:
        """Of the images in the annotation file."""
        data = experiment.config.data
        annotations = load(data.test, experiment.folder, masks=False)
        return [annotations.image_path(i) for i in detection_loader.tested_positions(annotations, data).tolist()]

    def test_batches(
        self, experiment: Experiment, rank: int, world_size: int, done: Collection[int]
    ) -> InferenceBatches:
        """Batches of one image."""
        return detection_loader.test_batches(detection_config(experiment), experiment.folder, rank, world_size, done)

    def raw_predictions(self, model: nn.Module, batch: Batch) -> Sequence[RawDetections | Detections]:
        """What `model.detect` finds, in network pixels; a model without that method gives final detections."""
        return getattr(model, "detect", model)(batch)

    def finish(self, raw: RawDetections | Detections, target: Targets) -> Detections:  # type: ignore[override]
        """Detections in original pixels, masks encoded."""
        return raw if isinstance(raw, Detections) else postprocess.finish(raw, target)

    def in_input_frame(self, target: Targets) -> Targets:  # type: ignore[override]
        """The image as it was after augmentation passes for the original."""
        return replace(target, original_size=target.size)

    def meters(self, experiment: Experiment, model: nn.Module, device: torch.device) -> Sequence[GroupMeter]:
        """How rare, common and frequent classes are learned."""
        found = frequency_groups(detection_config(experiment).data, experiment.folder)
        return [GroupMeter(model, found.groups, device)]

    def drawer(self, experiment: Experiment) -> Draw:
        """Boxes, masks and class names."""
        data = experiment.config.data
        names = [category.name for category in categories(data.train, experiment.folder)]

        def draw(image: Tensor, shown: Targets | Detections) -> np.ndarray:
            if isinstance(shown, Targets):
                return np.asarray(draw_targets(image, shown, names, channels=data.channels))
            return np.asarray(draw_detections(image, shown, names, channels=data.channels))

        return draw

    def prepare(self, experiment: Experiment) -> Prepare:
        """Resized as for a test."""
        resize = detection_loader.test_resize(detection_config(experiment).data)
        return partial(detection_dataset.to_test_sample, resize=resize)

    def describe(self, experiment: Experiment) -> Describe:
        """Detections with the categories of the training set."""
        known = categories(experiment.config.data.train, experiment.folder)
        names, ids = [category.name for category in known], [category.id for category in known]

        def describe(found: Detections, source: str, read_pixels: ReadPixels) -> DetectionResult:
            return DetectionResult(source, read_pixels, found, names, ids)

        return describe

    def predictions(self, experiment: Experiment, folder: Path) -> DetectionPredictions:
        """Shards of detections in `folder`."""
        return DetectionPredictions(detection_config(experiment), experiment, folder)

    def prediction_settings(self, experiment: Experiment) -> dict[str, Any]:
        """What counts as a detection, and the size that images are tested at."""
        config = detection_config(experiment)
        return {
            **{name: getattr(config.model, name) for name in config.model.decisive},
            "test_size": config.data.test_size,
            "test_max_size": config.data.test_max_size,
        }

    def pack_target(self, target: Targets) -> dict[str, Any]:
        """Masks become a dict of tensors."""
        masks = None if target.masks is None else {k: torch.as_tensor(v) for k, v in vars(target.masks).items()}
        return {**vars(target), "masks": masks}

    def unpack_target(self, packed: Mapping[str, Any]) -> Targets:
        """With the kind of masks that it had."""
        masks: dict[str, Tensor] | None = packed["masks"]
        if masks is None:
            return Targets(**packed)
        if "bitmaps" in masks:
            return Targets(**{**packed, "masks": BitMasks(masks["bitmaps"])})
        return Targets(**{**packed, "masks": PolygonMasks(**{k: np.asarray(v) for k, v in masks.items()})})


def detection_config(experiment: Experiment) -> DetectionConfig:
    """The config of an experiment of this task; ConfigError for one of another task."""
    if not isinstance(experiment.config, DetectionConfig):
        raise ConfigError(
            f"{experiment.folder}: config.py holds a {type(experiment.config).__name__} where the task detection needs "
            "a DetectionConfig"
        )
    return experiment.config


def has_mask_head(model: nn.Module) -> bool:
    """Whether a network learns masks: by a `MaskHead`, or because its attribute `learns_masks` says so."""
    return getattr(model, "learns_masks", any(isinstance(module, MaskHead) for module in model.modules()))


TASK = Detection()
