"""What methods ask about a training set: class counts and their files, frequency groups, where boxes lie.

`num_shots_v0.5.npy` is a one-dimensional integer array in label order; `num_shots_v1.0.json` a flat list of
category id, count, category id, count, ...
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import Data
from cvpods_ext.data import catalog, category_tables, statistics
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.statistics import FrequencyGroups
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.runtime.files import atomic_path, write_json, write_text

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# The N of a frequency, from https://www.lvisdataset.org: v0.5 leaves out images without annotations.
LVIS_IMAGES = {"lvis_v1_train": 100_170, "lvis_v0.5_train": 56_740}


def class_counts(data: Data, start: Path | str) -> torch.Tensor:
    """(num_classes,) float32 counts of the training set, all positive, for losses and calibration.

    Taken from the file that `data.num_shots` names, else the data set's published num_shots file if it lies below
    the data root, else the shipped LVIS table (images per class), else counted from the training json (images).
    """
    import torch  # deferred: `pods_data` reads and writes these files without it

    categories = catalog.categories(data.train, start)
    counts, source = _find(data, start, [category.id for category in categories])
    empty = [category.name for category, count in zip(categories, counts, strict=True) if count <= 0]
    if empty:
        shown = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
        raise DataError(
            f"{source}: {len(empty)} of {len(counts)} classes have no training sample ({shown}), so they cannot be "
            "weighted; add samples or remove the categories"
        )
    logger.info("class counts: %s", source)
    return torch.from_numpy(counts.astype(np.float32))


def image_counts(data: Data, start: Path | str) -> torch.Tensor:
    """(num_classes,) float32 number of training images of each class, from the shipped table or the training json.

    Unlike `class_counts` it reads no num_shots file, since those do not say what they count.
    """
    import torch

    counts = _shipped_image_counts(data)
    if counts is None:
        counts = statistics.count_classes(_annotations(data, start), "image")
    return torch.from_numpy(counts.astype(np.float32))


def instance_counts(data: Data, start: Path | str) -> torch.Tensor:
    """(num_classes,) float32 number of annotated objects of each class, from the shipped table or the training json."""
    import torch

    table = catalog.known(data.train).table if isinstance(data.train, str) else ""
    counts = np.array([category.instance_count for category in category_tables.load(table)] if table else [-1])
    if (counts < 0).any():
        counts = statistics.count_classes(_annotations(data, start), "instance")
    return torch.from_numpy(counts.astype(np.float32))


def frequency_groups(data: DetectionData, start: Path | str) -> FrequencyGroups:
    """What the training set says of its classes, else by its numbers of images and `data.frequency_limits`."""
    stated = np.array([category.frequency for category in catalog.categories(data.train, start)])
    if (stated != "").all():
        return FrequencyGroups(stated, "stated by the training set")
    annotations = _annotations(data, start)
    groups = statistics.groups_by_count(statistics.count_classes(annotations), data.frequency_limits)
    origin = f"training images per class in {annotations.facts['json']}: {statistics.in_words(data.frequency_limits)}"
    return FrequencyGroups(groups, origin)


def frequency_groups_if_known(data: DetectionData, start: Path | str) -> FrequencyGroups | None:
    """`frequency_groups`, or None where the training set is not on this machine, which is warned about."""
    try:
        return frequency_groups(data, start)
    except DataError as error:
        logger.warning("frequency groups are those of the test set: the training set cannot be read (%s)", error)
        return None


def num_images(data: Data, start: Path | str) -> int:
    """Training images that frequencies refer to; of data without a known number, the annotated ones."""
    if isinstance(data.train, str) and data.train in LVIS_IMAGES:
        return LVIS_IMAGES[data.train]
    return len(statistics.annotated_images(_annotations(data, start)))


def box_centres(data: Data, start: Path | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres (M, 2) float64 in [0, 1] of width and height, and labels (M,) int64, of all boxes that are not crowds.

    Reads the training json, which must therefore be there even when a model is only built.
    """
    import torch

    found = _annotations(data, start)
    index, boxes = found.index, found.boxes()
    kept = ~index.crowd
    sides = np.stack((found.widths, found.heights), axis=1)[index.image[kept]]
    centres = (boxes[kept, :2] + boxes[kept, 2:]) / 2 / sides.astype(np.float64)
    return torch.from_numpy(centres), torch.from_numpy(index.label[kept].astype(np.int64))


def _shipped_image_counts(data: Data) -> np.ndarray | None:
    """(num_classes,) int64, or None where the table of a data set has no counts, or there is none."""
    table = catalog.known(data.train).table if isinstance(data.train, str) else ""
    if not table:
        return None
    counts = np.array([category.image_count for category in category_tables.load(table)])
    return counts if (counts >= 0).all() else None


def _find(data: Data, start: Path | str, category_ids: Sequence[int]) -> tuple[np.ndarray, str]:
    """Counts in the order of the ascending `category_ids`, and where they are from."""
    if data.num_shots:
        named = Path(data.num_shots).expanduser()
        path = named if named.is_absolute() else catalog.data_root(start) / named
        if not path.is_file():
            raise ConfigError(
                f"data.num_shots={data.num_shots}: {path} does not exist; write it with `pods_data num-shots`"
            )
        return read_num_shots(path, category_ids), str(path)
    if isinstance(data.train, str):
        entry = catalog.known(data.train)
        published = _in_data_root(entry.num_shots, start)
        if published is not None:
            return read_num_shots(published, category_ids), str(published)
        counts = _shipped_image_counts(data)
        if counts is not None:
            return counts, f"shipped table {entry.table} (images per class)"
    annotations = _annotations(data, start)
    counts = statistics.count_classes(annotations, "image")
    return counts, f"images per class counted in {annotations.paths.annotations}"


def _annotations(data: Data, start: Path | str) -> Annotations:
    return catalog.load(data.train, start)


def _in_data_root(relative: str, start: Path | str) -> Path | None:
    try:
        path = catalog.data_root(start) / relative
    except DataError:  # no data on this machine, for instance when a model is only built
        return None
    return path if relative and path.is_file() else None


def read_num_shots(path: Path, category_ids: Sequence[int]) -> np.ndarray:
    """(num_classes,) int64 in label order, from either format. Never unpickles.

    A json names its categories, which must be those of the data set; an npy has counts alone, so its length must fit.
    """
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else json.loads(path.read_text())
        flat = np.asarray(values)
    except (OSError, ValueError, EOFError, RecursionError, OverflowError) as error:
        raise DataError(f"{path} is not a num_shots file ({error}); write it with `pods_data num-shots`") from error
    if not isinstance(flat, np.ndarray) or flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise DataError(f"{path} must hold a one-dimensional array of whole numbers; write it with pods_data num-shots")
    if path.suffix == ".npy":
        found = flat
    elif len(flat) % 2:
        raise DataError(f"{path} must be a flat list of whole numbers: category id, count, category id, count, ...")
    else:
        count_of = dict(zip(flat[::2].tolist(), flat[1::2].tolist(), strict=True))
        strange = sorted(set(category_ids) ^ set(count_of))
        if strange or 2 * len(count_of) != len(flat):
            raise DataError(
                f"{path} has counts for {len(flat) // 2} classes, which are not the {len(category_ids)} categories of "
                f"the training set (category ids {strange[:5]} are in one of both only); make it again with "
                "`pods_data num-shots`"
            )
        found = np.array([count_of[number] for number in category_ids])
    if len(found) != len(category_ids):
        raise DataError(
            f"{path} has counts for {len(found)} classes, but the training set has {len(category_ids)} categories; "
            "make it again with `pods_data num-shots`"
        )
    return found.astype(np.int64)


def write(path: Path, counts: np.ndarray, category_ids: np.ndarray, origin: dict[str, object]) -> None:
    """Write (num_classes,) counts in the format of the suffix, and `origin` beside it as `<name>.origin.json`."""
    if path.suffix == ".npy":
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, counts.astype(np.int64), allow_pickle=False)
    elif path.suffix == ".json":
        pairs = np.stack((category_ids, counts), axis=1)
        write_text(path, json.dumps(pairs.reshape(-1).tolist()) + "\n")
    else:
        raise ConfigError(f"a num_shots file ends in .npy or .json, got {path}")
    write_json(path.with_name(path.name + ".origin.json"), origin)
