"""Batches of a detector: which images are used, how they are transformed, what is checked before the first one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from cvpods_ext.config.detection import DetectionConfig, DetectionData
from cvpods_ext.config.schema import Data
from cvpods_ext.data import catalog, loader, statistics, transforms
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.category_check import check_categories
from cvpods_ext.data.dataset import InferenceDataset, TrainingDataset
from cvpods_ext.data.detection_dataset import DetectionImages
from cvpods_ext.data.sampling import BatchOrder
from cvpods_ext.errors import DataError
from cvpods_ext.structures import Batch

MOST_DROPPED = 0.1  # share of annotations that may be broken before a run refuses to start


def training_batches(
    cfg: DetectionConfig,
    folder: Path | str,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    skipped_file: Path | None = None,
) -> Iterator[Batch]:
    """`batches_of` the training set, for a network that learns masks."""
    annotations = load_checked(cfg.data, cfg.data.train, folder)
    return batches_of(annotations, cfg, start_iteration, rank, world_size, skipped_file)


def batches_of(
    annotations: Annotations,
    cfg: DetectionConfig,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    skipped_file: Path | None = None,
) -> Iterator[Batch]:
    """Endless batches of `schedule.images_per_device` images for one process, see `loader.training_batches`.

    Raises DataError if no image has an annotation.
    """
    positions = loader.limited(statistics.training_images(annotations, cfg.data.train_on_empty_images), cfg.data)
    if len(positions) == 0:
        raise DataError(f"{annotations.paths.annotations} has no image with an annotation to train on")
    source = DetectionImages(annotations, cfg.data.channels, training_transforms(cfg.data))
    dataset = TrainingDataset(source, positions, cfg.seed, loader.patience(len(positions)))
    order = batch_order(cfg, annotations, positions, start_iteration, rank, world_size)
    return loader.training_batches(dataset, order, cfg.data.workers, skipped_file)


def batch_order(
    cfg: DetectionConfig,
    annotations: Annotations,
    positions: np.ndarray,
    start_iteration: int,
    rank: int,
    world_size: int,
) -> BatchOrder:
    """Which images make up which batch of this process; with `group_by_aspect` a batch is all wide or all tall."""
    tall = (annotations.heights >= annotations.widths)[positions].astype(np.int64)
    return loader.batch_order(
        cfg,
        loader.sampler(cfg.data, len(positions), partial(statistics.pairs, annotations, positions)),
        tall if cfg.data.group_by_aspect else None,
        start_iteration,
        rank,
        world_size,
    )


def training_transforms(data: DetectionData) -> list[transforms.Transform]:
    """What is done to a training image, in this order."""
    if data.lsj_side:
        low, high = data.lsj_range
        return [
            transforms.HorizontalFlip(data.flip_probability),
            transforms.LargeScaleJitter(data.lsj_side, low, high),
        ]
    return [
        transforms.ShortestEdgeResize(data.train_sizes, data.train_max_size),
        transforms.HorizontalFlip(data.flip_probability),
    ]


def test_resize(data: DetectionData) -> transforms.ShortestEdgeResize:
    """What is done to an image that is tested."""
    return transforms.ShortestEdgeResize((data.test_size,), data.test_max_size)


def test_batches(
    cfg: DetectionConfig, folder: Path | str, rank: int, world_size: int, skip_image_ids: Collection[int]
) -> loader.InferenceBatches:
    """Batches of one image: this process's share of the test set, without the images already done."""
    annotations = load_checked(cfg.data, cfg.data.test, folder, masks=False)
    source = DetectionImages(annotations, cfg.data.channels, resize=test_resize(cfg.data))
    positions = tested_positions(annotations, cfg.data)
    share = loader.share(positions, annotations.image_ids, skip_image_ids, rank, world_size)
    return loader.test_batches(InferenceDataset(source, share), cfg.data.workers, 1)


def tested_positions(annotations: Annotations, data: Data) -> np.ndarray:
    """Positions of the images that a test reads."""
    return loader.limited(np.arange(len(annotations)), data)


def load_checked(data: DetectionData, dataset: catalog.Dataset, folder: Path | str, masks: bool = True) -> Annotations:
    """Annotations that are sound but for a few, of the categories that the network learns, and whose images exist.

    `masks` says whether an annotation needs one where others have it. Raises DataError.
    """
    annotations = catalog.load(dataset, folder, masks)
    check_categories(catalog.categories(data.train, folder), annotations)
    dropped = sum(annotations.dropped.values())
    if dropped > MOST_DROPPED * annotations.facts["annotations"]:
        raise DataError(
            f"{dropped:,} of {annotations.facts['annotations']:,} annotations in {annotations.paths.annotations} "
            f"cannot be used, more than {MOST_DROPPED:.0%}; they are listed in {annotations.dropped_list}"
        )
    first = annotations.image_path(0)
    if not first.is_file() and not annotations.image_path(len(annotations) - 1).is_file():
        raise DataError(
            f"no image of {annotations.paths.annotations.name} where it should be, for example {first}; "
            "`pods_data doctor` lists what is missing and where to get it"
        )
    return annotations
