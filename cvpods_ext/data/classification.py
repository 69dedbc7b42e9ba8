"""Images with one class each: a folder per class, or a list of files and labels. Never imports torch.

The training set says which classes there are and in which order; a test set may lack some of them, but not add any.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvpods_ext.config.classification import ClassificationData, ImageFiles
from cvpods_ext.data import class_lists
from cvpods_ext.data.annotations.file_names import leaves_folder
from cvpods_ext.data.catalog import rooted
from cvpods_ext.data.class_lists import ImageLabel
from cvpods_ext.data.image_folders import IMAGE_SUFFIXES, files_below
from cvpods_ext.errors import ConfigError, DataError

EXAMPLES = 3
MOST_CLASSES = 1_000_000  # that a list is believed to have; more is a column that holds something else


@dataclass(frozen=True)
class KnownImages:
    """A data set known by name: where its files lie below the data root, its classes, where to get it.

    `flat_list` is a list of files and labels that is read where it exists and `files.images` has no folder per class.
    """

    files: ImageFiles
    source: str
    imagenet: bool = False
    flat_list: str = ""


_IMAGENET = "ILSVRC 2012 from https://image-net.org (about 150 GB): its training and validation images"
_LT = "the lists of https://github.com/zhmiao/OpenLongTailRecognition-OLTR, and " + _IMAGENET
_INAT = "https://github.com/visipedia/inat_comp/tree/master/2018 (about 120 GB) and lists of its files and labels"
KNOWN = {
    "imagenet_train": KnownImages(ImageFiles(images="imagenet/train"), _IMAGENET, imagenet=True),
    "imagenet_val": KnownImages(
        ImageFiles(images="imagenet/val"), _IMAGENET, imagenet=True, flat_list="imagenet/meta/val.txt"
    ),
    **{
        f"imagenet_lt_{split}": KnownImages(
            ImageFiles(images="imagenet", annotations=f"ImageNet_LT/ImageNet_LT_{split}.txt"), _LT, imagenet=True
        )
        for split in ("train", "val", "test")
    },
    **{  # as folders of cvpods call them
        f"imagenetlt_{split}": KnownImages(
            ImageFiles(images="imagenetlt", annotations=f"imagenetlt/ImageNet_LT_{split}.txt"), _LT, imagenet=True
        )
        for split in ("train", "val", "test")
    },
    **{
        f"inat2018_{split}": KnownImages(
            ImageFiles(images="iNaturalist18", annotations=f"iNaturalist18/iNaturalist18_{split}.txt"), _INAT
        )
        for split in ("train", "val")
    },
}


@dataclass(frozen=True)
class LabelledPhotos:
    """The images of a data set in the order of their list or names; ids are positions plus one.

    `files` are paths below `images`, `labels` (len(files),) int64 positions in `classes`.
    """

    name: str
    images: Path
    files: Sequence[str]
    labels: np.ndarray
    classes: Sequence[ImageLabel]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def image_ids(self) -> np.ndarray:
        """(len(self),) int64."""
        return np.arange(1, len(self) + 1)

    def image_path(self, position: int) -> Path:
        """The image file."""
        return self.images / self.files[position]

    def listed_again(self) -> int:
        """How many entries name a file that an earlier one names."""
        return len(self) - len({posixpath.normpath(file) for file in self.files})

    def counts(self) -> np.ndarray:
        """(number of classes,) int64 images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def sha256(self) -> str:
        """Digest of the names of all files, their labels and the classes; no image is read."""
        digest = hashlib.sha256("\0".join(each.key for each in self.classes).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update("\0".join(self.files).encode(errors="surrogateescape"))
        return digest.hexdigest()


def load(data: ClassificationData, dataset: str | ImageFiles, start: Path | str) -> LabelledPhotos:
    """List a data set as seen from the experiment folder `start`, in the classes of `data.train`; opens no image.

    Labels of a list whose classes are known, by `ImageFiles.classes` or the data set's name, are matched by the keys of
    the classes, those of other lists are taken as positions. DataError for missing folders and files, classes that the
    training set lacks, and lists that cannot be read.
    """
    found = classes(data, start)
    images, listed = _places(dataset, start)
    name = dataset if isinstance(dataset, str) else (listed.stem if listed else images.name)
    if listed is None:
        files, labels = _by_folder(images, found, dataset)
    else:
        files, labels = _read_list(listed, _may_leave(dataset))
        of_labels = _classes_of_list(dataset, start)
        labels = _as_in_training(listed, labels, of_labels, found) if of_labels else labels
        _require_labels(listed, labels, len(found))
        if not (images / files[0]).exists():
            raise DataError(f"{listed}: its first file, {images / files[0]}, does not exist; {_remedy(dataset)}")
    return LabelledPhotos(name, images, files, np.asarray(labels, np.int64), found)


def classes(data: ClassificationData, start: Path | str) -> tuple[ImageLabel, ...]:
    """The classes of the training set in label order; nothing is opened for one of ImageNet's."""
    train = data.train
    if isinstance(train, str) and known(train).imagenet:
        return class_lists.imagenet()
    if isinstance(train, ImageFiles) and train.classes:
        return class_lists.read(rooted(start, train.classes)[0])
    images, listed = _places(train, start)
    if listed is not None:
        return class_lists.numbered(_largest_label(listed, _read_list(listed, _may_leave(train))[1]) + 1)
    folders = _folders(images)
    if not folders:
        raise DataError(f"{images} holds no folders, and each is to be a class; {_remedy(train)}")
    return class_lists.of_folders(folders)


def _classes_of_list(dataset: str | ImageFiles, start: Path | str) -> Sequence[ImageLabel]:
    """The classes that the labels of a list count, empty where nothing says it."""
    if isinstance(dataset, str):
        return class_lists.imagenet() if known(dataset).imagenet else ()
    return class_lists.read(rooted(start, dataset.classes)[0]) if dataset.classes else ()


def _as_in_training(
    path: Path, labels: Sequence[int], own: Sequence[ImageLabel], trained: Sequence[ImageLabel]
) -> list[int]:
    """Labels that count the classes `own`, as positions of the same keys in `trained`."""
    _require_labels(path, labels, len(own))
    own_keys, position = [each.key for each in own], {each.key: label for label, each in enumerate(trained)}
    if own_keys == list(position):
        return list(labels)
    strange = sorted({own_keys[label] for label in labels} - position.keys())
    if strange:
        some = ", ".join(map(repr, strange[:EXAMPLES])) + (", ..." if len(strange) > EXAMPLES else "")
        raise DataError(
            f"{path} has images of {len(strange)} classes that the training set does not have: {some}; its "
            f"{len(trained)} classes are {', '.join(each.key for each in trained[:EXAMPLES])}, .... Where these are "
            "the same classes, name them alike: ImageFiles(classes=...) of the training and the test set"
        )
    return [position[own_keys[label]] for label in labels]


def num_classes(data: ClassificationData, start: Path | str) -> int:
    """Number of classes of the training set."""
    return len(classes(data, start))


def known(name: str) -> KnownImages:
    """A data set known by name; ConfigError for an unknown one."""
    if name not in KNOWN:
        close = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(
            f"unknown data set '{name}' for classification: {hint}(known: {', '.join(KNOWN)}; for data of your own "
            "with one folder per class write ImageFiles(images='my_images/train'))"
        )
    return KNOWN[name]


def _places(dataset: str | ImageFiles, start: Path | str) -> tuple[Path, Path | None]:
    """The folder of the images, and the list of files and labels if there is one."""
    files = dataset if isinstance(dataset, ImageFiles) else known(dataset).files
    images, *listed = rooted(start, files.images, *([files.annotations] if files.annotations else []))
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; {_remedy(dataset)}")
    if not listed and isinstance(dataset, str) and known(dataset).flat_list and not _folders(images):
        listed = rooted(start, known(dataset).flat_list)
        if not listed[0].is_file():
            raise DataError(
                f"{images} has no folder per class, and there is no list {listed[0]} of its files ('name label' a "
                "line); write the list, or move the images into folders named by WordNet id"
            )
    return images, (listed[0] if listed else None)


def _remedy(dataset: str | ImageFiles) -> str:
    """Where to get or correct what is missing."""
    if isinstance(dataset, ImageFiles):
        return "correct ImageFiles in config.py, or set PODS_DATASETS to the folder that its paths start from"
    return f"put it below the data root; it is {known(dataset).source}"


def _may_leave(dataset: str | ImageFiles) -> bool:
    return isinstance(dataset, ImageFiles) and dataset.names_may_leave


def _folders(images: Path) -> list[str]:
    """Folders in `images`, sorted by name; hidden ones are left out."""
    with os.scandir(images) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _by_folder(images: Path, found: Sequence[ImageLabel], dataset: str | ImageFiles) -> tuple[list[str], list[int]]:
    label_of = {each.key: label for label, each in enumerate(found)}
    folders = _folders(images)
    if strange := [folder for folder in folders if folder not in label_of]:
        raise DataError(
            f"{images} has {len(strange)} folders that are no class of the training set: "
            f"{', '.join(strange[:EXAMPLES])}{', ...' if len(strange) > EXAMPLES else ''}; the {len(found)} classes "
            f"are {', '.join(each.key for each in found[:EXAMPLES])}, ..."
        )
    files: list[str] = []
    labels: list[int] = []
    for folder in folders:
        inside = files_below(images / folder)
        files += [f"{folder}/{file}" for file in inside]
        labels += [label_of[folder]] * len(inside)
    if not files:
        raise DataError(
            f"{images} holds no image ({', '.join(IMAGE_SUFFIXES)}) in a folder per class; {_remedy(dataset)}"
        )
    return files, labels


def _read_list(path: Path, may_leave: bool) -> tuple[list[str], list[int]]:
    """Files and labels of a list, one "path label" a line; DataError with the number of the first bad line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of files and labels {path} cannot be read ({error})") from None
    files: list[str] = []
    labels: list[int] = []
    label_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        file, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not file.strip() or not label.isascii() or not label.isdigit() or len(label) > 9:
            raise DataError(f"{path}, line {number}: {line[:80]!r} is not 'path label' with a label from 0")
        if not may_leave and leaves_folder(file):
            raise DataError(
                f"{path}, line {number}: {file[:80]!r} leads out of the image folder. If that is meant, say so by "
                "ImageFiles(..., names_may_leave=True); else make the names relative to the folder."
            )
        files.append(file.strip())
        labels.append(int(label))
        before = label_of.setdefault(posixpath.normpath(files[-1]), labels[-1])
        if before != labels[-1]:
            raise DataError(
                f"{path}, line {number}: {file[:80]!r} has the label {label}, and {before} on a line "
                "before; an image is of one class, so correct one of the lines"
            )
    if not files:
        raise DataError(f"{path} names no file; write one 'path label' a line")
    return files, labels


def _largest_label(path: Path, labels: Sequence[int]) -> int:
    largest = max(labels)
    if largest >= MOST_CLASSES:
        raise DataError(
            f"{path} has the label {largest}, more than {MOST_CLASSES:,} classes; labels count classes from 0 without "
            "gaps"
        )
    return largest


def _require_labels(path: Path, labels: Sequence[int], count: int) -> None:
    largest = max(labels)
    if largest >= count:
        raise DataError(
            f"{path} has the label {largest}, but there are {count} classes, 0 to {count - 1}; give both lists the "
            "same labels, or the classes file its missing lines"
        )
