"""Where old folders find their class counts: below `datasets`, beside the package that they take for cvpods."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np

from cvpods_ext.config.classification import ClassificationData, ClassificationTest
from cvpods_ext.config.schema import Data
from cvpods_ext.data import catalog, classification_statistics, num_shots
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import write_json

logger = logging.getLogger(__name__)

DATASETS = "datasets"
FILES = ("lvis/num_shots_v0.5.npy", "lvis/num_shots_v1.0.json")
OF_IMAGES = ("imagenetlt/category_frequency.json", "imagenetlt/imagenet_lt_category_frequency.json")


class DataParent:
    """A folder with an entry `datasets`: that of the data root, or a temporary one with links into it.

    A temporary one is made where the data root has another name, or where the folder's sources mention class counts
    and there is no such file: it is then written from the counts of the training set. It lives as long as this object.
    """

    def __init__(self, data: Data, folder: Path) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        root = _root(folder)  # None where there are no data, for instance when a model is only built
        missing = [n for n in _wanted(data) if root is None or not (root / n).is_file()] if _asks(folder) else []
        if not missing and (root is None or root.name == DATASETS):
            self.path = folder.parent if root is None else root.parent
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="pods-datasets-")
        self.path = Path(self._temporary.name)
        _link(root, self.path / DATASETS, missing)
        if missing:
            _write_counts(data, folder, [self.path / DATASETS / name for name in missing])


def _wanted(data: Data) -> tuple[str, ...]:
    """The files that a folder of this training set may read; of data of one's own, either."""
    if isinstance(data, ClassificationData):
        return OF_IMAGES
    if isinstance(data.train, str) and data.train.startswith("lvis_"):
        return FILES[:1] if data.train.startswith("lvis_v0.5") else FILES[1:]
    return FILES


def _asks(folder: Path) -> bool:
    sources = (path.read_text(encoding="utf-8", errors="ignore") for path in folder.rglob("*.py"))
    return any("num_shots" in source or "category_frequency" in source for source in sources)


def _root(folder: Path) -> Path | None:
    try:
        return catalog.data_root(folder)
    except DataError:
        return None


def _link(root: Path | None, target: Path, missing: list[str]) -> None:
    """Links to all of `root`, with folders of their own where `missing` files will be written."""
    if not missing and root is not None:
        target.symlink_to(root)
        return
    target.mkdir()
    own = {Path(name).parent.name for name in missing}
    if root is None:
        for name in own:
            (target / name).mkdir()
        return
    for entry in root.iterdir():
        if entry.name not in own:
            (target / entry.name).symlink_to(entry)
    for name in own:
        (target / name).mkdir()
        for entry in (root / name).iterdir() if (root / name).is_dir() else ():
            (target / name / entry.name).symlink_to(entry)


def _write_counts(data: Data, folder: Path, paths: list[Path]) -> None:
    if isinstance(data, ClassificationData):
        _write_frequencies(data, folder, paths)
        return
    counts = num_shots.class_counts(data, folder).numpy()
    ids = np.array([category.id for category in catalog.categories(data.train, folder)])
    for path in paths:
        num_shots.write(path, counts, ids, {"from": "images per class of the training set"})
        logger.info("%s is not in the data root; images per class of the training set stand in for it", path.name)


def _write_frequencies(data: ClassificationData, folder: Path, paths: list[Path]) -> None:
    """Training images of every class, and the classes of the groups of Liu et al., as folders of ImageNet-LT read."""
    counts = classification_statistics.training_counts(data, folder)
    groups = classification_statistics.frequency_groups(data, ClassificationTest(), folder).groups
    named = {"many_cats": "many", "medium_cats": "medium", "low_cats": "few"}
    content = {key: np.flatnonzero(groups == group).tolist() for key, group in named.items()}
    for path in paths:
        write_json(path, {"train_shots": counts.tolist(), **content})
    logger.info("%s is not in the data root; images per class of the training set stand in for it", paths[0].name)
