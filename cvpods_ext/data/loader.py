"""From a data set and an order to batches, read ahead by worker processes; the same for every task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cvpods_ext.config.schema import Config, Data
from cvpods_ext.data import statistics
from cvpods_ext.data.dataset import BrokenImage, InferenceDataset, Sample, TrainingDataset
from cvpods_ext.data.sampling import BatchOrder, RepeatFactorSampler, Sampler, UniformSampler
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.runtime.files import append_line
from cvpods_ext.structures import Batch

logger = logging.getLogger(__name__)

Collated = tuple[Batch, list[BrokenImage]]


def training_batches(
    dataset: TrainingDataset, order: BatchOrder, workers: int, skipped_file: Path | None = None
) -> Iterator[Batch]:
    """Endless batches of one process in the given order.

    An iteration takes batch_size / images_per_device batches over all processes; the engine draws this process's
    share of them for every optimizer step. The images of an iteration, their order and their augmentation depend on
    seed and iteration alone, not on the number of processes or workers, nor on where a run was resumed.

    Images that cannot be read are replaced, and appended to `skipped_file` (tab-separated image id and reason); more
    than the data set's `patience` stop the run with a DataError.
    """
    loader = _loader(dataset, workers, batch_sampler=order)
    return _without_broken(loader, SkipLog(skipped_file, dataset.patience))


def patience(num_images: int) -> int:
    """How many unreadable images a run goes on with: one in a thousand, at least two."""
    return max(2, num_images // 1000)


def batch_order(
    cfg: Config,
    sampler: Sampler,
    groups: np.ndarray | None,
    start_iteration: int,
    rank: int,
    world_size: int,
) -> BatchOrder:
    """Which images make up which batch of this process; `groups` as in BatchOrder."""
    batches_per_iteration = cfg.schedule.batch_size // cfg.schedule.images_per_device
    if batches_per_iteration % world_size:
        raise ConfigError(
            f"schedule.batch_size={cfg.schedule.batch_size} cannot be shared by {world_size} processes with "
            f"schedule.images_per_device={cfg.schedule.images_per_device}; "
            "change one of them so that batch_size is a multiple of their product"
        )
    return BatchOrder(
        sampler=sampler,
        seed=cfg.seed,
        batch_size=cfg.schedule.images_per_device,
        groups=groups,
        start=start_iteration * batches_per_iteration,
        rank=rank,
        world_size=world_size,
    )


def sampler(data: Data, num_images: int, find_pairs: Callable[[], statistics.Pairs]) -> Sampler:
    """The sampler that `data.sampler` names; `find_pairs` tells which class occurs in which image if it must know."""
    if data.sampler == "uniform":
        return UniformSampler(num_images)
    pairs = find_pairs()
    image_counts, threshold = pairs.counts("image"), data.repeat_threshold
    if data.sampler == "repeat_factor":
        factors = statistics.repeat_factors(image_counts, pairs.num_images, threshold)
    else:
        instance_counts = pairs.counts("instance")
        factors = statistics.instance_repeat_factors(image_counts, instance_counts, pairs.num_images, threshold)
    if told := statistics.nothing_repeats(pairs, data.sampler, threshold):
        logger.warning(told)
    return RepeatFactorSampler(torch.from_numpy(statistics.image_repeat_factors(pairs, factors)))


def limited(positions: np.ndarray, data: Data) -> np.ndarray:
    """The first `data.max_images` positions, all of them if that is 0."""
    return positions[: data.max_images] if data.max_images else positions


def share(
    positions: np.ndarray, image_ids: np.ndarray, done: Collection[int], rank: int, world_size: int
) -> np.ndarray:
    """What one process tests of the images at `positions`, without those whose ids are `done`.

    `image_ids` holds the id of every position of the data set.
    """
    finished = np.isin(image_ids[positions], np.fromiter(done, np.int64))
    return positions[~finished][rank::world_size]


def test_batches(dataset: InferenceDataset, workers: int, images_per_batch: int) -> InferenceBatches:
    """Batches in the order of the data set."""
    return InferenceBatches(_loader(dataset, workers, batch_size=images_per_batch))


def single_pictures(dataset: Dataset, workers: int) -> Iterator[Collated]:
    """A batch of one image for each picture in order, empty where it cannot be read, and then why not."""
    return _collated(_loader(dataset, workers, batch_size=1))


@dataclass(frozen=True)
class InferenceBatches:
    """The images that one process tests; its length is that of the batches. An unreadable image is a DataError."""

    loader: DataLoader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch, broken in _collated(self.loader):
            if broken:
                raise DataError(f"a test needs every image, but {broken[0].reason}")
            yield batch


def _loader(dataset: Dataset, workers: int, **batching: Any) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        **batching,
    )


def collate(samples: list[Sample]) -> Collated:
    """Images stay a list, since padding belongs to the model."""
    readable = [(s.image, s.target) for s in samples if s.image is not None and s.target is not None]
    batch = Batch([image for image, _ in readable], [target for _, target in readable])
    return batch, [broken for sample in samples for broken in sample.broken]


def _without_broken(loader: DataLoader, log: SkipLog) -> Iterator[Batch]:
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


class SkipLog:
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
        """Raises DataError once more images were unreadable than the limit."""
        for image in broken:
            if image.image_id in self._seen:
                continue
            self._seen.add(image.image_id)
            logger.warning("skipped (%d so far): %s", len(self._seen), image.reason)
            if self._file is not None and image.image_id not in self._listed:
                append_line(self._file, f"{image.image_id}\t{image.reason}")
        if len(self._seen) > self._limit:
            listed = f"; they are listed in {self._file}" if self._file else ""
            raise DataError(
                f"{len(self._seen)} training images cannot be read, more than the {self._limit} that are skipped"
                f"{listed}. The last one: {broken[-1].reason}"
            )
