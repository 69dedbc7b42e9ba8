"""The classes of an image classification data set: what they are called in files, and for people.

Never imports torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cvpods_ext.errors import DataError


@dataclass(frozen=True)
class ImageLabel:
    """A class: `key` is the name of its folder, or its number in a list of files; `name` is for people."""

    key: str
    name: str


def numbered(count: int) -> tuple[ImageLabel, ...]:
    """Classes that are known by their numbers from 0 only."""
    return tuple(ImageLabel(str(label), str(label)) for label in range(count))


def of_folders(folders: Sequence[str]) -> tuple[ImageLabel, ...]:
    """Classes that are called like their folders."""
    return tuple(ImageLabel(folder, folder) for folder in folders)


def read(path: Path) -> tuple[ImageLabel, ...]:
    """Classes of a text file in label order, each a line: its folder, or folder, tab, name.

    DataError for a file that cannot be read, has no class or one of them twice.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the classes in {path} cannot be read ({error})") from None
    parts = [line.partition("\t") for line in lines]
    classes = tuple(ImageLabel(key.strip(), name.strip() or key.strip()) for key, _, name in parts)
    if not classes:
        raise DataError(f"{path} names no class; write one a line, in label order")
    keys = [each.key for each in classes]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path} has the class {twice!r} twice")
    return classes


@cache
def imagenet() -> tuple[ImageLabel, ...]:
    """The 1,000 classes of ILSVRC 2012 in the order of their WordNet ids, named as in the tables that timm carries."""
    spec = importlib.util.find_spec("timm")  # does not import it, and with it torch
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the names of ImageNet's classes are timm's: pip install timm")
    tables = Path(spec.submodule_search_locations[0], "data", "_info")
    lemmas = dict(
        line.split("\t", 1) for line in _lines(tables / "imagenet_synset_to_lemma.txt")
    )  # of all WordNet ids in timm's larger label sets
    return tuple(ImageLabel(synset, lemmas[synset]) for synset in _lines(tables / "imagenet_synsets.txt"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"timm's table {path} cannot be read ({error}); install timm>=1.0 again") from None
