"""Training images of every class: for samplers, losses, and the groups many-, medium- and few-shot.

Shapes: K = classes. Never imports torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cvpods_ext.config.classification import ClassificationData, ClassificationTest
from cvpods_ext.data import classification
from cvpods_ext.data.catalog import rooted
from cvpods_ext.data.classification import LabelledPhotos
from cvpods_ext.data.num_shots import read_num_shots
from cvpods_ext.data.statistics import FrequencyGroups, Pairs
from cvpods_ext.errors import ConfigError, DataError


def pairs(dataset: LabelledPhotos, positions: np.ndarray) -> Pairs:
    """Which class the images at `positions` are of; every image is one instance."""
    labels = dataset.labels[positions]
    return Pairs(np.arange(len(labels)), labels, np.ones(len(labels), np.int64), len(labels), len(dataset.classes))


def class_counts(data: ClassificationData, start: Path | str) -> np.ndarray:
    """(K,) float32 training images of each class, all positive, for losses and calibration.

    From the file that `data.num_shots` names (ids are labels), else counted. DataError for a class without images,
    which cannot be weighted.
    """
    counts, origin = _counted(data, start)
    names = [each.name for each in classification.classes(data, start)]
    if absent := [name for name, count in zip(names, counts, strict=True) if count <= 0]:
        shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
        raise DataError(
            f"{origin}: {len(absent)} of {len(counts)} classes have no training image ({shown}), so they cannot be "
            "weighted; add images or remove the classes"
        )
    return counts.astype(np.float32)


def frequency_groups(data: ClassificationData, test: ClassificationTest, start: Path | str) -> FrequencyGroups:
    """(K,) of "many", "medium" and "few" by training images, in the limits of Liu et al. unless set otherwise."""
    counts, origin = _counted(data, start)
    groups = np.where(counts > test.many_above, "many", np.where(counts < test.few_below, "few", "medium"))
    return FrequencyGroups(groups, f"{origin}: few < {test.few_below} <= medium <= {test.many_above} < many")


def training_counts(data: ClassificationData, start: Path | str) -> np.ndarray:
    """(K,) int64 training images of each class."""
    return _counted(data, start)[0]


def _counted(data: ClassificationData, start: Path | str) -> tuple[np.ndarray, str]:
    """Counts of all classes, and where they are from in words."""
    if not data.num_shots:
        train = classification.load(data, data.train, start)
        return train.counts(), f"training images per class in {train.name}"
    path = rooted(start, data.num_shots)[0]
    if not path.is_file():
        raise ConfigError(f"data.num_shots={data.num_shots}: {path} does not exist; drop the setting to count instead")
    ids = range(classification.num_classes(data, start))
    return read_num_shots(path, ids), f"training images per class in {path.name}"
