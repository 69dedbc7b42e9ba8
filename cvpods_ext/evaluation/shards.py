"""Predictions on disk: the Parquet shards of a folder, each complete or absent, and what they say of themselves.

A shard holds complete images only and lists them in its metadata, so an interrupted test continues at the first image
that no shard names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.data.annotations import policy
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import atomic_path

if TYPE_CHECKING:
    from types import TracebackType

_Writer = TypeVar("_Writer", bound="ShardWriter")

SHARD_IMAGES = 500  # by default; what a crash may lose


@dataclass(frozen=True)
class ShardMetadata:
    """The images that a shard completes, its test settings, its number of rows and the names of its columns."""

    image_ids: list[int]
    settings: dict[str, Any]
    rows: int
    columns: Sequence[str]


@dataclass(frozen=True)
class ShardKind:
    """The shards of a task: files <stem>-<process>-<number>.parquet that hold at least `columns`."""

    stem: str
    columns: pa.Schema

    def files(self, folder: Path) -> list[Path]:
        """Complete shards in `folder`, by process and number; those of a linked folder under their own path."""
        folder = Path(folder)
        folder = folder.resolve() if folder.is_symlink() else folder
        return sorted((p for p in folder.glob("*.parquet") if self._matched(p)), key=self.rank_and_number)

    def rank_and_number(self, path: Path) -> tuple[int, int]:
        """The two numbers in the name of a shard."""
        match = self._matched(path)
        assert match, f"{path} is not named like a shard"
        return int(match[1]), int(match[2])

    def _matched(self, path: Path) -> re.Match[str] | None:
        return re.fullmatch(rf"{self.stem}-(\d+)-(\d+)\.parquet", path.name)

    def read_metadata(self, path: Path) -> ShardMetadata:
        """Read the footer only; a truncated or foreign file is a DataError."""
        try:
            footer = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is not a complete Parquet file ({first_line(error)}). "
                "Delete it and test again: only its images are repeated."
            ) from error
        columns = footer.schema.to_arrow_schema()
        metadata = footer.metadata or {}
        image_ids, settings = (_json(metadata.get(key, b"null")) for key in (b"image_ids", b"settings"))
        lack = [f"column {field.name}" for field in self.columns if not _has_column(columns, field)]
        if not isinstance(image_ids, list) or not all(policy.whole_number(i) == i for i in image_ids):
            lack.append("a list image_ids of whole numbers in its metadata")
        if lack:
            raise DataError(
                f"{path} lacks {', '.join(lack)}: it was not written as a {self.stem} shard. Move it out of the folder."
            )
        return ShardMetadata(
            image_ids, settings if isinstance(settings, dict) else {}, footer.num_rows, tuple(columns.names)
        )

    def settings(self, folder: Path) -> list[dict[str, Any]]:
        """What each shard in `folder` was made with, from its metadata."""
        return [self.read_metadata(path).settings for path in self.files(folder)]

    def set_damaged_aside(self, folder: Path) -> list[Path]:
        """Rename shards that were cut short, so that their images count as not predicted yet; returns the new names.

        The images that a shard completes are named at its end. Files of another kind stay, and are refused when read.
        """
        damaged = []
        for path in self.files(folder):
            try:
                pq.read_metadata(path)
            except (pa.ArrowException, OSError):
                damaged.append(path.rename(path.with_name(f"{path.name}.damaged")))
        return damaged

    def completed_image_ids(self, folder: Path) -> set[int]:
        """Images that need not be predicted again; two shards that both hold an image are a DataError."""
        owner: dict[int, Path] = {}
        for path in self.files(folder):
            for image_id in self.read_metadata(path).image_ids:
                if image_id in owner:
                    raise DataError(
                        f"image {image_id} is in both {owner[image_id]} and {path.name}: its {self.stem} would count "
                        "twice. Delete one of the two and test again: only its images are repeated."
                    )
                owner[image_id] = path
        return set(owner)


class ShardWriter:
    """Streams the predictions of one process into shards of `shard_images` images, so memory stays bounded.

    Use as a context manager: leaving it writes the last, shorter shard (also on Ctrl-C; a crash loses at most one).
    `settings` must be JSON; shards of other settings in the same folder are a DataError, since the mixture would be
    evaluated as one result.
    """

    def __init__(
        self, kind: ShardKind, folder: Path, rank: int, settings: dict[str, Any], shard_images: int = SHARD_IMAGES
    ) -> None:
        self._kind, self._folder, self._rank, self._settings = kind, Path(folder), rank, settings
        self._shard_images = shard_images
        self._refuse_other_settings()
        mine = [number for owner, number in map(kind.rank_and_number, kind.files(self._folder)) if owner == rank]
        self._next = max(mine, default=-1) + 1
        self._image_ids: list[int] = []
        self._batches: list[pa.RecordBatch] = []

    def _refuse_other_settings(self) -> None:
        for path in self._kind.files(self._folder):
            found = self._kind.read_metadata(path).settings
            if found != json.loads(json.dumps(self._settings)):
                raise DataError(
                    f"{path} was made with other test settings: {found}, now {self._settings}. "
                    f"Delete {self._folder} to test anew, or restore those settings to continue."
                )

    def append(self, image_id: int, rows: pa.RecordBatch) -> None:
        """The predictions of one complete image, in the columns of the kind."""
        self._batches.append(rows)
        self._image_ids.append(int(image_id))
        if len(self._image_ids) >= self._shard_images:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as one shard."""
        if not self._image_ids:
            return
        schema = self._kind.columns.with_metadata(shard_metadata(self._image_ids, self._settings))
        with atomic_path(self._folder / f"{self._kind.stem}-{self._rank}-{self._next}.parquet") as temporary:
            pq.write_table(pa.Table.from_batches(self._batches).cast(schema), temporary, compression="zstd")
        self._next += 1
        self._image_ids, self._batches = [], []

    def __enter__(self: _Writer) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.flush()


def shard_metadata(image_ids: Sequence[int], settings: dict[str, Any]) -> dict[str, str]:
    """What a shard says about itself: the images it completes and the test options it was made with."""
    return {"image_ids": json.dumps([int(i) for i in image_ids]), "settings": json.dumps(settings, sort_keys=True)}


def first_line(error: Exception) -> str:
    """What an error says, without the lines below, which are of its library."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _json(text: bytes) -> Any:
    """A value of the metadata; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _has_column(found: pa.Schema, wanted: pa.Field) -> bool:
    """Whether there is a column that holds the kind of values that `wanted` does."""
    if wanted.name not in found.names:
        return False
    kind = found.field(wanted.name).type
    if pa.types.is_floating(wanted.type):
        return pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if pa.types.is_integer(wanted.type):
        return pa.types.is_integer(kind) or pa.types.is_null(kind)
    return any(of(kind) for of in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_null))
