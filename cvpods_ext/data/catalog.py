"""Which data sets are known by name, where their files lie, and where to get them. Never imports torch.

Files are looked for below one data root: the environment variable PODS_DATASETS, else the nearest folder called
`datasets` in the experiment folder or above it.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvpods_ext.config import playground
from cvpods_ext.config.schema import Data, DatasetFiles
from cvpods_ext.data import category_tables
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.annotations.annotations import load as load_file
from cvpods_ext.data.annotations.joined import JoinedAnnotations
from cvpods_ext.data.paths import DatasetPaths, Schema
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.runtime.download import as_text

Dataset = str | DatasetFiles | tuple[DatasetFiles, ...]


@dataclass(frozen=True, kw_only=True)
class Download:
    """One official file and what it unpacks to below the data root.

    `length` in bytes and `sha256` are None and "" where no source states them; `about` is what else is said of its
    size, `unpacked` roughly the bytes of its content. An archive is unpacked `into` a folder of the data root, by
    default that of `unpacks_to`. What cannot be fetched by a program says `by_hand` what to do.
    """

    url: str
    unpacks_to: str
    length: int | None = None
    sha256: str = ""
    about: str = ""
    unpacked: int | None = None
    into: str | None = None
    by_hand: str = ""

    @property
    def size(self) -> str:
        """Its size as a person reads it."""
        stated = [as_text(self.length)] if self.length or not self.about else []
        return ", ".join([*stated, self.about] if self.about else stated)

    @property
    def folder(self) -> str:
        """The folder of the data root that the content of the archive belongs into."""
        return str(Path(self.unpacks_to).parent) if self.into is None else self.into


@dataclass(frozen=True)
class KnownDataset:
    """A data set with a name of its own; paths are relative to the data root."""

    annotations: str
    images: str
    schema: Schema
    num_classes: int
    table: str  # shipped category facts
    downloads: tuple[Download, ...]
    num_shots: str = ""  # published file of class counts


# Bytes and checksums of COCO and LVIS v1 are those of tensorflow/datasets (coco.txt, lvis/checksums.tsv).
_COCO_IMAGES = (
    Download(
        url="http://images.cocodataset.org/zips/train2017.zip",
        unpacks_to="coco/train2017",
        length=19_336_861_798,
        sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
    Download(
        url="http://images.cocodataset.org/zips/val2017.zip",
        unpacks_to="coco/val2017",
        length=815_585_330,
        sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
)
_LVIS = "https://dl.fbaipublicfiles.com/LVIS"
_SHOTS = "https://github.com/Megvii-BaseDetection/DisAlign/releases/download/LVIS"
_SHOTS_V1 = Download(url=f"{_SHOTS}/num_shots_v1.0.json", unpacks_to="lvis/num_shots_v1.0.json")
_SHOTS_V05 = Download(url=f"{_SHOTS}/num_shots_v0.5.npy", unpacks_to="lvis/num_shots_v0.5.npy")


def _lvis(json_name: str, version: str, **facts: Any) -> KnownDataset:
    zipped = Download(url=f"{_LVIS}/{json_name}.json.zip", unpacks_to=f"lvis/{json_name}.json", **facts)
    shots = _SHOTS_V1 if version == "v1" else _SHOTS_V05
    return KnownDataset(
        annotations=zipped.unpacks_to,
        images="coco",
        schema="lvis",
        num_classes=1203 if version == "v1" else 1230,
        table=f"lvis_{version}_train",
        downloads=(zipped, *_COCO_IMAGES, shots),
        num_shots=shots.unpacks_to,
    )


def _coco(split: str) -> KnownDataset:
    annotations = f"coco/annotations/instances_{split}2017.json"
    zipped = Download(
        url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        unpacks_to=annotations,
        length=252_907_541,
        sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        into="coco",
    )
    images = [download for download in _COCO_IMAGES if split in download.url]
    return KnownDataset(annotations, f"coco/{split}2017", "coco", 80, "coco_2017", (zipped, *images))


def _objects365(split: str) -> KnownDataset:
    """Objects365 v2, whose page asks for a registration; `trainval` is what `docs/eva02.md` says how to join."""
    annotations = f"objects365/zhiyuan_objv2_{split}.json"
    page = Download(
        url="https://www.objects365.org/download.html",
        unpacks_to=annotations,
        by_hand="its page asks for a registration: fetch it there in a browser, and unpack it as docs/eva02.md says",
    )
    return KnownDataset(annotations, "objects365", "coco", 365, "", (page,))


KNOWN: dict[str, KnownDataset] = {
    "lvis_v1_train": _lvis(
        "lvis_v1_train",
        "v1",
        length=350_264_821,
        sha256="334a4caa374030a7817cf050364525e910f7960f9b6968cef47cffbf3893f8ba",
        about="1.1 GB unpacked",
        unpacked=1_100_000_000,
    ),
    "lvis_v1_val": _lvis(
        "lvis_v1_val",
        "v1",
        length=64_026_968,
        sha256="5cae9a3c79aadb667550c2b5dcf7f4d86e059a41ec91ef690225b667e28e9ba5",
    ),
    "lvis_v0.5_train": _lvis("lvis_v0.5_train", "v0.5"),
    "lvis_v0.5_val": _lvis("lvis_v0.5_val", "v0.5"),
    "coco_2017_train": _coco("train"),
    "coco_2017_val": _coco("val"),
    "objects365_trainval": _objects365("trainval"),
    "objects365_val": _objects365("val"),
}


def known(name: str) -> KnownDataset:
    """The data set called `name`; a ConfigError suggests the nearest name."""
    if name not in KNOWN:
        close = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(
            f"unknown data set '{name}': {hint}(known: {', '.join(KNOWN)}; "
            "for data of your own write DatasetFiles(annotations='my.json', images='my_images'))"
        )
    return KNOWN[name]


def data_root(start: Path | str) -> Path:
    """PODS_DATASETS if set (relative to the current folder), else the nearest `datasets` from `start` upward.

    For an experiment of an installed package it is searched from the current folder upward.
    """
    configured = os.environ.get("PODS_DATASETS")
    if configured:
        root = Path(configured).expanduser().resolve()
        if not root.is_dir():
            raise DataError(
                f"PODS_DATASETS={configured} is not a folder; point it at the folder that holds lvis/ and coco/"
            )
        return root
    start = Path.cwd() if playground.is_installed(Path(start)) else Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "datasets").is_dir():
            return folder / "datasets"
    raise DataError(
        f"no folder called datasets in {start} or above it; create one, or set PODS_DATASETS to your data root "
        "(`pods_data doctor` lists what belongs there)"
    )


def rooted(start: Path | str, *paths: str) -> list[Path]:
    """Absolute paths; the data root is needed only for relative ones."""
    expanded = [Path(path).expanduser() for path in paths]
    if all(path.is_absolute() for path in expanded):
        return expanded
    root = data_root(start)
    return [root / path for path in expanded]


def resolve(dataset: str | DatasetFiles, start: Path | str) -> DatasetPaths:
    """Absolute paths of a data set seen from the experiment folder `start`; nothing is opened.

    Absolute paths in DatasetFiles need no data root.
    """
    if isinstance(dataset, DatasetFiles):
        annotations, images = Path(dataset.annotations).expanduser(), Path(dataset.images).expanduser()
        root = annotations.parent if annotations.is_absolute() and images.is_absolute() else data_root(start)
        name = annotations.name.removesuffix(".gz").removesuffix(".json")
        return DatasetPaths(name, root / annotations, root / images, "own", root, dataset.names_may_leave)
    entry = known(dataset)
    root = data_root(start)
    return DatasetPaths(dataset, root / entry.annotations, root / entry.images, entry.schema, root)


def load(dataset: Dataset, start: Path | str, masks: bool = True) -> Annotations:
    """The annotations of a data set, those of several files joined by the names of their categories.

    `masks` as in `annotations.load`. DataError for files that are missing, unreadable, or cannot be joined.
    """
    if isinstance(dataset, tuple):
        if not dataset:
            raise ConfigError("data.train is an empty tuple; name at least one data set")
        return JoinedAnnotations([load_file(resolve(each, start), masks) for each in dataset])
    return load_file(resolve(dataset, start), masks)


def num_classes(data: Data, start: Path | str) -> int:
    """Foreground classes of the training set; read from the annotations only for data of one's own."""
    if isinstance(data.train, str):
        return known(data.train).num_classes
    return load(data.train, start).num_classes


def categories(dataset: Dataset, start: Path | str) -> tuple[category_tables.Category, ...]:
    """Categories in label order, from the shipped facts for data sets known by name, else from the json."""
    if isinstance(dataset, str) and known(dataset).table:
        return category_tables.load(known(dataset).table)
    return load(dataset, start).categories
