"""Batches for training and testing, read ahead by worker processes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from cvpods_ext.config.detection import DetectionConfig, DetectionData
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, statistics, transforms
from cvpods_ext.data.annotations import annotations as annotation_files
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.dataset import BrokenImage, InferenceDataset, Sample, TrainingDataset
from cvpods_ext.data.sampling import BatchOrder, RepeatFactorSampler, Sampler, UniformSampler
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.structures import Batch

logger = logging.getLogger(__name__)

MOST_DROPPED = 0.1  # share of annotations that may be broken before a run refuses to start

Collated = tuple[Batch, list[BrokenImage]]


def training_batches(
    cfg: DetectionConfig,
    folder: Path | str,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    skipped_file: Path | None = None,
) -> Iterator[Batch]:
    """Endless batches of `schedule.images_per_device` images for one process, from `start_iteration` on.

    An iteration takes batch_size / images_per_device batches over all processes; the engine draws this process's
    share of them for every optimizer step. The images of an iteration, their order and their augmentation depend on
    seed and iteration alone, not on the number of processes or workers, nor on where a run was resumed.

    Images that cannot be read are replaced, and appended to `skipped_file` (tab-separated image id and reason); more
    than one in a thousand, at least three, stop the run with a DataError.
    """
    annotations = load_checked(cfg.data, cfg.data.train, folder)
    positions = _limited(statistics.annotated_images(annotations), cfg.data)
    if len(positions) == 0:
        raise DataError(f"{annotations.paths.annotations} has no image with an annotation to train on")
    patience = max(2, len(positions) // 1000)
    dataset = TrainingDataset(
        annotations, positions, training_transforms(cfg.data), cfg.data.channels, cfg.seed, patience
    )
    order = batch_order(cfg, annotations, positions, start_iteration, rank, world_size)
    loader = _loader(dataset, cfg.data, batch_sampler=order)
    return _without_broken(loader, _SkipLog(skipped_file, patience))


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


def batch_order(
    cfg: DetectionConfig,
    annotations: Annotations,
    positions: np.ndarray,
    start_iteration: int,
    rank: int,
    world_size: int,
) -> BatchOrder:
    """Which images make up which batch of this process."""
    batches_per_iteration = cfg.schedule.batch_size // cfg.schedule.images_per_device
    if batches_per_iteration % world_size:
        raise ConfigError(
            f"schedule.batch_size={cfg.schedule.batch_size} cannot be shared by {world_size} processes with "
            f"schedule.images_per_device={cfg.schedule.images_per_device}; "
            "change one of them so that batch_size is a multiple of their product"
        )
    tall = (annotations.heights >= annotations.widths)[positions].astype(np.int64)
    return BatchOrder(
        sampler=sampler(cfg.data, annotations, positions),
        seed=cfg.seed,
        batch_size=cfg.schedule.images_per_device,
        groups=tall if cfg.data.group_by_aspect else None,
        start=start_iteration * batches_per_iteration,
        rank=rank,
        world_size=world_size,
    )


def sampler(data: DetectionData, annotations: Annotations, positions: np.ndarray) -> Sampler:
    """The sampler that `data.sampler` names, over the images at `positions`."""
    if data.sampler == "uniform":
        return UniformSampler(len(positions))
    pairs = statistics.pairs(annotations, positions)
    image_counts, threshold = pairs.counts("image"), data.repeat_threshold
    if data.sampler == "repeat_factor":
        factors = statistics.repeat_factors(image_counts, pairs.num_images, threshold)
    else:
        instance_counts = pairs.counts("instance")
        factors = statistics.instance_repeat_factors(image_counts, instance_counts, pairs.num_images, threshold)
    return RepeatFactorSampler(torch.from_numpy(statistics.image_repeat_factors(pairs, factors)))


def test_batches(
    cfg: DetectionConfig,
    folder: Path | str,
    rank: int,
    world_size: int,
    skip_image_ids: Collection[int],
) -> InferenceBatches:
    """Batches of one image: this process's share of the test set, without the images already done."""
    annotations = load_checked(cfg.data, cfg.data.test, folder)
    positions = _limited(np.arange(len(annotations)), cfg.data)
    done = np.isin(annotations.image_ids[positions], np.fromiter(skip_image_ids, np.int64))
    resize = transforms.ShortestEdgeResize((cfg.data.test_size,), cfg.data.test_max_size)
    dataset = InferenceDataset(annotations, positions[~done][rank::world_size], resize, cfg.data.channels)
    return InferenceBatches(_loader(dataset, cfg.data, batch_size=1))


@dataclass(frozen=True)
class InferenceBatches:
    """The images that one process tests; its length is their number. An unreadable image is a DataError."""

    loader: DataLoader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch, broken in _collated(self.loader):
            if broken:
                raise DataError(f"a test needs every image, but {broken[0].reason}")
            yield batch


def load_checked(data: DetectionData, dataset: str | DatasetFiles, folder: Path | str) -> Annotations:
    """Annotations that are sound but for a few, for as many classes as the network has, and whose images exist."""
    annotations = annotation_files.load(catalog.resolve(dataset, folder))
    expected = catalog.num_classes(data, folder)
    if annotations.num_classes != expected:
        raise DataError(
            f"{annotations.paths.annotations} has {annotations.num_classes} categories, but the training set "
            f"{data.train} has {expected}; both must list the same categories"
        )
    dropped = sum(annotations.facts["dropped"].values())
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


def _limited(positions: np.ndarray, data: DetectionData) -> np.ndarray:
    return positions[: data.max_images] if data.max_images else positions


def _loader(dataset: TrainingDataset | InferenceDataset, data: DetectionData, **batching) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=data.workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if data.workers else None,
        **batching,
    )


def collate(samples: list[Sample]) -> Collated:
    """Images stay a list, since padding belongs to the model."""
    readable = [(s.image, s.targets) for s in samples if s.image is not None and s.targets is not None]
    batch = Batch([image for image, _ in readable], [targets for _, targets in readable])
    return batch, [broken for sample in samples for broken in sample.broken]


def _without_broken(loader: DataLoader, log: _SkipLog) -> Iterator[Batch]:
    for batch, broken in _collated(loader):
        log.add(broken)
        yield batch


def _collated(loader: DataLoader) -> Iterator[Collated]:
    """What the loader gives; a worker process that was killed becomes a DataError."""
    try:
        yield from loader
    except (EOFError, ConnectionError, RuntimeError) as error:
        # An exception inside a worker is a RuntimeError as well, but starts otherwise.
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker (pid"):
            raise
        raise DataError(
            "a data loader process was killed, most often because memory ran out; continue with --resume, "
            "and with fewer processes (data.workers) if it happens again"
        ) from error


class _SkipLog:
    """Counts distinct unreadable images, lists each once in a file, and stops the run above a limit.

    What an earlier start of the run listed is not listed again, but counts only if it is met again: images may have
    been mended.
    """

    def __init__(self, file: Path | None, limit: int) -> None:
        self._file, self._limit = file, limit
        self._seen: set[int] = set()
        listed = file.read_text(encoding="utf-8").splitlines() if file is not None and file.is_file() else []
        self._listed = {int(line.partition("\t")[0]) for line in listed}

    def add(self, broken: list[BrokenImage]) -> None:
        for image in broken:
            if image.image_id in self._seen:
                continue
            self._seen.add(image.image_id)
            logger.warning("skipped (%d so far): %s", len(self._seen), image.reason)
            if self._file is not None and image.image_id not in self._listed:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with open(self._file, "a", encoding="utf-8") as file:
                    file.write(f"{image.image_id}\t{image.reason}\n")
        if len(self._seen) > self._limit:
            listed = f"; they are listed in {self._file}" if self._file else ""
            raise DataError(
                f"{len(self._seen)} training images cannot be read, more than the {self._limit} that are skipped"
                f"{listed}. The last one: {broken[-1].reason}"
            )
