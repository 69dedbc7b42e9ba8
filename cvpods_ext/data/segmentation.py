"""Images with label maps: a folder of images, and a PNG of the same name for each, whose values are classes.

Never imports torch.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationData
from cvpods_ext.data.catalog import Download, rooted
from cvpods_ext.data.image_folders import IMAGE_SUFFIXES, files_below
from cvpods_ext.errors import ConfigError, DataError

IGNORE = 255
MOST_CLASSES = 255  # that 8 bits hold beside IGNORE
EXAMPLES = 3
ADE20K = Download(
    url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    unpacks_to="ADEChallengeData2016",
    about="about 1 GB",
)


def _ade20k(split: str) -> LabelMapFiles:
    root = ADE20K.unpacks_to
    images, labels = f"{root}/images/{split}", f"{root}/annotations/{split}"
    return LabelMapFiles(annotations=labels, images=images, classes="ade20k", reduce_zero_label=True)


KNOWN = {"ade20k_train": _ade20k("training"), "ade20k_val": _ade20k("validation")}


@dataclass(frozen=True)
class PixelClass:
    """A class; its share of the labelled training pixels and its number of training images, -1 where nobody says."""

    name: str
    pixel_share: float = -1.0
    train_images: int = -1


@dataclass(frozen=True)
class LabelledImages:
    """The images of a data set in the order of their names; ids are positions plus one.

    `files` are paths below `images`, the label map of each is its name with .png below `labels`.
    """

    name: str
    images: Path
    labels: Path
    files: Sequence[str]
    classes: Sequence[PixelClass]
    reduce_zero_label: bool

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def first_value(self) -> int:
        """PNG value of class 0."""
        return int(self.reduce_zero_label)

    @property
    def image_ids(self) -> np.ndarray:
        """(len(self),) int64."""
        return np.arange(1, len(self) + 1)

    def stem(self, position: int) -> str:
        """The image's path without suffix, which is also its label map's."""
        return os.path.splitext(self.files[position])[0]

    def image_path(self, position: int) -> Path:
        """The image file."""
        return self.images / self.files[position]

    def label_path(self, position: int) -> Path:
        """The label map."""
        return self.labels / f"{self.stem(position)}.png"

    def read_labels(self, position: int) -> np.ndarray:
        """uint8 (H, W) in [0, num_classes) or IGNORE; DataError names the file and what is wrong with it."""
        return read_labels(self.label_path(position), self.num_classes, self.reduce_zero_label)

    def size(self, position: int) -> tuple[int, int]:
        """(height, width) of the label map, from its header."""
        with _opened(self.label_path(position)) as file:
            return file.height, file.width


def load(dataset: str | LabelMapFiles, start: Path | str) -> LabelledImages:
    """List a data set as seen from the experiment folder `start`; no image is opened.

    DataError if a folder or an image's label map is missing, or two images have one label map.
    """
    files = dataset if isinstance(dataset, LabelMapFiles) else known(dataset)
    images, labels = rooted(start, files.images, files.annotations)
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; {_source(dataset)}")
    found = files_below(images)
    if not found:
        raise DataError(f"{images} holds no image ({', '.join(IMAGE_SUFFIXES)}); {_source(dataset)}")
    name = dataset if isinstance(dataset, str) else images.name
    table = f"{files.classes}.csv" if isinstance(dataset, str) else rooted(start, files.classes)[0]
    loaded = LabelledImages(name, images, labels, found, read_classes(table), files.reduce_zero_label)
    _require_label_maps(loaded)
    return loaded


def known(name: str) -> LabelMapFiles:
    """The folders of a data set known by name; ConfigError for an unknown one."""
    if name not in KNOWN:
        raise ConfigError(
            f"unknown data set '{name}' with label maps (known: {', '.join(KNOWN)}; for data of your own write "
            "LabelMapFiles(images='my_images', annotations='my_labels', classes='my_classes.txt'))"
        )
    return KNOWN[name]


def num_classes(data: SegmentationData, start: Path | str) -> int:
    """Number of classes of the training set, from its list of classes alone."""
    return len(classes(data, start))


def classes(data: SegmentationData, start: Path | str) -> tuple[PixelClass, ...]:
    """The classes of the training set in label order, from its list alone."""
    if isinstance(data.train, str):
        return read_classes(f"{known(data.train).classes}.csv")
    return read_classes(rooted(start, data.train.classes)[0])


def _source(dataset: str | LabelMapFiles) -> str:
    """Where to get what is missing."""
    if isinstance(dataset, LabelMapFiles):
        return "correct LabelMapFiles in config.py, or set PODS_DATASETS to the folder that its paths start from"
    return f"get {ADE20K.url} ({ADE20K.size}); it unpacks to {ADE20K.unpacks_to} below the data root"


def _require_label_maps(dataset: LabelledImages) -> None:
    stems: dict[str, int] = {}
    for position in range(len(dataset)):
        other = stems.setdefault(dataset.stem(position), position)
        if other != position:
            raise DataError(
                f"{dataset.image_path(other)} and {dataset.files[position]} would share one label map; rename one"
            )
    present = stems_of_labels(dataset.labels)
    missing = [stem for stem in stems if stem not in present]
    if missing:
        shown = ", ".join(f"{stem}.png" for stem in missing[:EXAMPLES])
        raise DataError(
            f"{len(missing):,} of {len(dataset):,} images in {dataset.images} have no label map in {dataset.labels}: "
            f"{shown}{', ...' if len(missing) > EXAMPLES else ''}; add them or take the images away"
        )


def stems_of_labels(folder: Path) -> set[str]:
    """Names of all label maps below `folder`, without suffix."""
    return {os.path.splitext(file)[0] for file in files_below(folder) if file.lower().endswith(".png")}


def read_classes(source: str | Path) -> tuple[PixelClass, ...]:
    """Classes in the order of their PNG values, from a table of this package (a str), a CSV or a text file.

    DataError for values with gaps, a name twice, no class or more than 8 bits hold.
    """
    path = Path(__file__).parent / "tables" / source if isinstance(source, str) else source
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the class names in {path} cannot be read ({error})") from None
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    classes = _from_csv(path, lines) if path.suffix.lower() == ".csv" else [PixelClass(line.strip()) for line in lines]
    names = [each.name for each in classes]
    if not 1 <= len(classes) <= MOST_CLASSES:
        raise DataError(f"{path} names {len(classes)} classes; label maps of 8 bits hold 1 to {MOST_CLASSES}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path} has the class {twice[0]!r} twice")
    return tuple(classes)


def _from_csv(path: Path, lines: Sequence[str]) -> list[PixelClass]:
    rows = list(csv.DictReader(lines))
    try:
        values = [int(row["value"]) for row in rows]
        classes = [
            PixelClass(row["name"].strip(), float(row.get("pixel_share", -1)), int(row.get("train_images", -1)))
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} must have the columns value and name, and numbers where they belong ({error})"
        ) from None
    if values and values != list(range(values[0], values[0] + len(values))):
        raise DataError(f"the values in {path} must ascend without gaps, got {values[:8]}")
    return classes


def read_labels(path: Path, num_classes: int, reduce_zero_label: bool) -> np.ndarray:
    """uint8 (H, W) in [0, num_classes) or IGNORE of a PNG in palette or gray mode, see `LabelledImages.read_labels`."""
    with _opened(path) as file:
        try:
            values = np.asarray(file)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path} cannot be decoded ({error}); write it again") from None
    if values.ndim != 2:
        raise DataError(
            f"{path} is a colour picture ({file.mode}), not a label map; write class values as a PNG in gray or "
            "palette mode"
        )
    if values.size and int(values.max()) > IGNORE:
        raise DataError(f"{path} has the value {int(values.max())}; label maps hold 0 to {IGNORE}")
    labels = values.astype(np.uint8)
    if reduce_zero_label:
        labels = np.where(labels == IGNORE, IGNORE, labels - np.uint8(1))  # 0 becomes 255
    wrong = (labels >= num_classes) & (labels != IGNORE)
    if wrong.any():
        strange = np.unique(values[wrong])
        raise DataError(
            f"{path} has {int(wrong.sum()):,} pixels of the value {', '.join(map(str, strange[:EXAMPLES]))}, but the "
            f"{num_classes} classes have the values {int(reduce_zero_label)} to {num_classes - 1 + reduce_zero_label} "
            "(255 is unlabelled); correct the PNG, the list of classes or reduce_zero_label"
        )
    return labels


def _opened(path: Path) -> Image.Image:
    """A PNG whose header is sound; DataError otherwise."""
    try:
        return Image.open(path, formats=("PNG",))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; every image needs a label map of its name") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is no readable PNG ({reason})") from None


def sha256_of_labels(dataset: LabelledImages) -> str:
    """Digest of names and contents of all label maps, which decide an evaluation."""
    digest = hashlib.sha256()
    for position in range(len(dataset)):
        digest.update(f"{dataset.stem(position)}\0".encode())
        digest.update(hashlib.sha256(dataset.label_path(position).read_bytes()).digest())
    digest.update(str((dataset.reduce_zero_label, [each.name for each in dataset.classes])).encode())
    return digest.hexdigest()
