"""Settings for a data set of one's own, each with its reason: classes by frequency, sampling, length of the run.

Never imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data import catalog, statistics
from cvpods_ext.data.annotations.annotations import Annotations

EPOCHS = 36  # of a run on a small set, three times the 12 of COCO's 1x
FEWEST, MOST = 1_000, 90_000  # iterations
LONG_TAILED = 10  # most images of a class divided by fewest, from which on images are repeated


@dataclass(frozen=True)
class Choice:
    """A setting that differs from the base, by its key, and why."""

    key: str
    value: Any
    why: str


def choices(config: DetectionConfig, train: Annotations, batch_size: int = 0) -> list[Choice]:
    """What fits `config`, whose data sets are set already, to its training set `train`.

    `batch_size` 0 keeps that of the config, or as many images as there are.
    """
    counts = statistics.count_classes(train)
    images = len(statistics.training_images(train, config.data.train_on_empty_images))
    limits = _limits(config, counts)
    found = [*_groups(config, limits, counts), *_sampling(config, train, limits or config.data.frequency_limits)]
    if not train.facts["has_masks"]:
        found.append(Choice("test.metrics", ("bbox",), "the annotations have no masks"))
    if not train.facts["federated"] and config.test.max_detections != 100:
        why = "COCO's limit, since no image lists the classes that were looked for"
        found.append(Choice("test.max_detections", 100, why))
    return [*found, *_schedule(config, images, batch_size)]


def _limits(config: DetectionConfig, counts: np.ndarray) -> tuple[int, int] | None:
    """Limits that leave no group without classes, None where those of LVIS do or the data set states the groups."""
    stated = [category.frequency for category in catalog.categories(config.data.train, config.folder)]
    present = np.sort(counts[counts > 0])
    usual = set(statistics.groups_by_count(present, config.data.frequency_limits).tolist())
    if all(stated) or usual == {"r", "c", "f"} or len(np.unique(present)) < 3:
        return None
    distinct = np.unique(present)
    thirds = np.array_split(present, 3)
    low = min(int(thirds[0][-1]), int(distinct[-3]))
    high = min(max(int(thirds[1][-1]), int(distinct[distinct > low][0])), int(distinct[-2]))
    return low, high


def _groups(config: DetectionConfig, limits: tuple[int, int] | None, counts: np.ndarray) -> list[Choice]:
    if limits is None:
        return []
    groups = statistics.groups_by_count(counts, limits)
    sizes = " + ".join(str(int((groups == group).sum())) for group in "rcf")
    why = f"LVIS's 10 and 100 would leave a group empty; so {sizes} classes are rare + common + frequent"
    return [Choice("data.frequency_limits", limits, why)]


def _sampling(config: DetectionConfig, train: Annotations, limits: tuple[int, int]) -> list[Choice]:
    pairs = statistics.pairs(train, statistics.training_images(train, config.data.train_on_empty_images))
    counts = pairs.counts()
    counts = counts[counts > 0]
    ratio = counts.max() / counts.min()
    if ratio < LONG_TAILED:
        if config.data.sampler == "uniform":
            return []
        return [Choice("data.sampler", "uniform", f"classes differ by a factor of {ratio:.1f} only")]
    threshold = _rounded(limits[1] / pairs.num_images)
    if statistics.nothing_repeats(pairs, "repeat_factor", threshold):
        threshold = _rounded(4 * counts.min() / pairs.num_images)
    most = math.sqrt(max(1.0, threshold * pairs.num_images / counts.min()))
    why = f"{counts.max()} images of the commonest class, {counts.min()} of the rarest, drawn {most:.1f} times as often"
    found = [] if config.data.sampler == "repeat_factor" else [Choice("data.sampler", "repeat_factor", why)]
    reason = f"classes of fewer than about {threshold * pairs.num_images:.0f} of {pairs.num_images} images are repeated"
    return [*found, Choice("data.repeat_threshold", threshold, reason)]


def _rounded(value: float) -> float:
    """To two digits."""
    return float(f"{value:.2g}")


def _schedule(config: DetectionConfig, images: int, batch_size: int) -> list[Choice]:
    schedule = config.schedule
    batch = batch_size or min(schedule.batch_size, 2 ** int(math.log2(max(1, images))))
    found = []
    if batch != schedule.batch_size:
        why = "as asked for" if batch_size else f"there are {images} training images"
        found.append(Choice("schedule.batch_size", batch, why))
        at_once = math.gcd(batch, schedule.images_per_device)
        if at_once != schedule.images_per_device:
            found.append(Choice("schedule.images_per_device", at_once, "divides the batch"))
        scale = batch / schedule.batch_size
        rate = schedule.lr * (scale if schedule.optimizer == "sgd" else math.sqrt(scale))
        found.append(Choice("schedule.lr", float(f"{rate:.3g}"), "scaled with the batch"))
    iters = min(max(FEWEST, round(EPOCHS * images / batch)), MOST)
    if iters < schedule.iters:
        why = f"about {iters * batch / max(1, images):.0f} epochs of {images:,} images"
        found.append(Choice("schedule.iters", iters, why))
        if schedule.warmup_iters > iters // 10:
            found.append(Choice("schedule.warmup_iters", iters // 10, "a tenth of the run"))
        if config.checkpoint_every > iters // 4:
            found.append(Choice("checkpoint_every", iters // 4, "four checkpoints"))
    return found
