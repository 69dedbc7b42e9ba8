"""What has to be fetched for a data set, whether it is here, and fetching it: download, unpack, tidy up.

Archives lie in `.downloads` of the data root while they are needed, and a file beside each notes that it is being
unpacked; so every step can be stopped and is gone on with. Never imports torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from cvpods_ext.data import catalog, segmentation
from cvpods_ext.data.catalog import Download
from cvpods_ext.errors import ConfigError, DataError, DownloadError
from cvpods_ext.runtime import http
from cvpods_ext.runtime.download import Source, alone, fetch
from cvpods_ext.runtime.unpack import Unpacked, unpack_zip

FOLDER = ".downloads"
SETS: dict[str, tuple[str, ...]] = {
    "lvis_v1": ("lvis_v1_train", "lvis_v1_val"),
    "lvis_v0.5": ("lvis_v0.5_train", "lvis_v0.5_val"),
    "coco_2017": ("coco_2017_train", "coco_2017_val"),
    "ade20k": ("ade20k_train", "ade20k_val"),
}
_BY_HAND = {
    "imagenet": "ImageNet is handed out to registered users: fetch it from https://image-net.org in a browser, and "
    "put the images into imagenet/{train,val}/<WordNet id>/ of the data root (docs/classification.md)",
    "objects365": "Objects365 is handed out to registered users: fetch it from https://www.objects365.org in a "
    "browser, and put it into objects365/ of the data root as docs/eva02.md says",
}
_GROWTH = {".json.zip": 4.0, ".zip": 1.05}  # unpacked bytes for each packed one, where nobody says


@dataclass(frozen=True)
class Item:
    """One file to fetch; `unpacks_to` are all paths below the data root that it gives, `optional` what none needs."""

    download: Download
    unpacks_to: tuple[str, ...]
    optional: bool = False

    @property
    def name(self) -> str:
        """Its name at the publisher."""
        return PurePosixPath(urlsplit(self.download.url).path).name

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked."""
        return self.name.endswith(".zip")

    def archive(self, root: Path) -> Path:
        """Where it lies while it is needed."""
        return root / FOLDER / self.name if self.is_archive else root / self.unpacks_to[0]

    def is_there(self, root: Path) -> bool:
        """Whether all that it gives is there and nobody is or was amid unpacking it."""
        begun = self.is_archive and (self._mark(root, "unpacking").exists() or self.archive(root).exists())
        return not begun and all((root / path).exists() for path in self.unpacks_to)

    def arrived(self, root: Path) -> int:
        """Bytes of the file that are on disk already."""
        file = self.archive(root)
        for path in (file, file.with_name(f"{file.name}.part")):
            with suppress(OSError):
                return path.stat().st_size
        return 0

    def unpacked_bytes(self) -> int:
        """About how much it takes on disk when it is unpacked, 0 where that is not known."""
        download = self.download
        if download.unpacked or not self.is_archive:
            return download.unpacked or 0
        growth = next(factor for ending, factor in _GROWTH.items() if self.name.endswith(ending))
        growth = _GROWTH[".json.zip"] if "annotations" in self.name else growth
        return round((download.length or 0) * growth)

    def _mark(self, root: Path, state: str) -> Path:
        return root / FOLDER / f"{self.name}.{state}"

    def get(self, root: Path, keep_archive: bool = False) -> Unpacked | None:
        """Download, check and unpack; the archive is removed when all of it is on disk, unless a file there differs.

        Raises DownloadError, DataError or StorageError; what has arrived is gone on from by the next call.
        """
        download, file = self.download, self.archive(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        if download.by_hand:
            raise DataError(f"{download.url}: {download.by_hand}")
        source = Source(download.url, download.length, download.sha256, plain_http=True)
        if not self.is_archive:
            fetch(source, file)
            return None
        with alone(self._mark(root, "item")):
            if self.is_there(root):  # another process was faster
                return None
            fetch(source, file)
            mark = self._mark(root, "unpacking")
            mark.touch()
            unpacked = unpack_zip(file, root / download.folder)
            self._require_content(root, file)
            mark.unlink(missing_ok=True)
            if not keep_archive and not unpacked.differing:
                file.unlink()
            elif keep_archive:
                file.rename(self._kept(root))
        return unpacked

    def _kept(self, root: Path) -> Path:
        """The place of an archive that is done with."""
        folder = root / FOLDER / "unpacked"
        folder.mkdir(exist_ok=True)
        return folder / self.name

    def _require_content(self, root: Path, file: Path) -> None:
        absent = [path for path in self.unpacks_to if not (root / path).exists()]
        if absent:
            raise DataError(f"{file} was unpacked and has no {absent[0]}: it is not the archive that was expected")


def items(name: str) -> list[Item]:
    """What `name` (lvis_v1, coco_2017, ..., or a data set such as lvis_v1_val) needs, files that sets share once.

    ConfigError for a name that is not known, DataError with instructions for what asks for a login.
    """
    for start, text in _BY_HAND.items():
        if name == start or name.startswith(f"{start}_"):
            raise DataError(f"{name} cannot be fetched by a program. {text}")
    found: dict[str, Item] = {}
    for dataset in SETS.get(name, (name,)):
        for download, optional in _downloads(dataset):
            before = found.get(download.url)
            paths = dict.fromkeys((*(before.unpacks_to if before else ()), download.unpacks_to))
            found[download.url] = Item(download, tuple(paths), optional)
    return list(found.values())


def datasets(name: str) -> tuple[str, ...]:
    """The data sets of the catalog that `name` stands for."""
    return SETS.get(name, (name,))


def with_length(item: Item) -> Item:
    """The item with its length, asked of the server where no source states it; as it is if nobody answers."""
    if item.download.length or http.offline():
        return item
    try:
        length = http.head(item.download.url, plain_http=True).get("content-length", "")
    except DownloadError:
        return item
    return replace(item, download=replace(item.download, length=int(length))) if length.isdigit() else item


def without_checksum(item: Item) -> Item:
    """The item whatever its content, for a publisher who has replaced a file since."""
    return replace(item, download=replace(item.download, length=None, sha256=""))


def bytes_needed(missing: Sequence[Item], root: Path, keep_archives: bool) -> int:
    """The most that fetching `missing` one after the other takes on disk at any time, beyond what has arrived."""
    held = most = 0
    for item in missing:
        packed = max(0, (item.download.length or 0) - item.arrived(root))
        most = max(most, held + packed + item.unpacked_bytes())
        held += item.unpacked_bytes() + (packed if keep_archives or not item.is_archive else 0)
    return most


def _downloads(dataset: str) -> list[tuple[Download, bool]]:
    if dataset in segmentation.KNOWN and dataset in SETS["ade20k"]:
        return [(segmentation.ADE20K, False)]
    if dataset not in catalog.KNOWN:
        names = [*SETS, *_BY_HAND, *catalog.KNOWN]
        close = difflib.get_close_matches(dataset, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"{dataset!r} is no data set that can be fetched: {hint}(known: {', '.join(names)})")
    known = catalog.KNOWN[dataset]
    return [(each, each.unpacks_to == known.num_shots) for each in known.downloads]
