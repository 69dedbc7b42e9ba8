"""Zip files of strangers into a folder: nothing leaves the folder, nothing that is there is replaced, and it resumes.

A file appears under its name only when all of it is written and its checksum in the archive holds, so a process that
was killed goes on where it was: files that have their size are not written again. Imports no torch.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.download import as_text, require_space
from cvpods_ext.runtime.files import storage_error, what_is_at
from cvpods_ext.runtime.progress import byte_bar
from cvpods_ext.runtime.words import counted, printable

MOST_FILES = 5_000_000
LARGEST_RATIO = 60  # of unpacked to packed bytes: JSON reaches about 20
_SMALL = 100 << 20  # unpacked bytes that are never too many
_CHUNK = 1 << 20
_REMEDY = "What is unpacked is kept: make room, then run the command again and it goes on from there"
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Unpacked:
    """How many files the archive has, how many were written now, and those that were there with another size."""

    files: int
    written: int
    differing: tuple[str, ...]


def unpack_zip(archive: Path, folder: Path) -> Unpacked:
    """Unpack everything below `folder`; files that are there stay as they are.

    Raises DataError for an archive that is damaged, or that would write elsewhere, make links or fill the disk by far
    more than its own size, before anything is written where that can be told; StorageError without space.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(archive, opened.infolist())
            missing = [each for each in members if not _is_there(folder, each)]
            folder.mkdir(parents=True, exist_ok=True)
            require_space(folder, sum(each.file_size for each in missing), f"the content of {archive.name}")
            _write_all(opened, missing, folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} is damaged ({error}). Remove it and run the command again") from None
    except OSError as error:
        raise storage_error(error.filename or folder, error, _REMEDY) from error
    differing = tuple(each.filename for each in members if (folder / each.filename).stat().st_size != each.file_size)
    return Unpacked(len(members), len(missing), differing)


def _checked(archive: Path, members: Sequence[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The files among `members`, after a look at every name, kind and size."""
    files = [each for each in members if not each.filename.endswith("/")]
    seen: set[str] = set()
    for each in members:
        if problem := _problem(each, seen):
            raise DataError(f"{archive} is refused, nothing was unpacked: {printable(each.filename)!r} {problem}")
        seen.add(each.filename)
    total = sum(each.file_size for each in files)
    packed = archive.stat().st_size
    if len(files) > MOST_FILES or total > max(_SMALL, LARGEST_RATIO * packed):
        raise DataError(
            f"{archive} is refused, nothing was unpacked: {counted(len(files), 'file')} of {as_text(total)} in an "
            f"archive of {as_text(packed)}"
        )
    return files


def _problem(member: zipfile.ZipInfo, seen: set[str]) -> str:
    """Why a member is not unpacked, "" if nothing speaks against it."""
    name, mode = member.filename, member.external_attr >> 16
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or re.search(r"[\\:\x00-\x1f\x7f]", name):
        return "is no path below a folder"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if name in seen:
        return "comes twice"
    return ""


def _is_there(folder: Path, member: zipfile.ZipInfo) -> bool:
    path = folder / member.filename
    if os.path.lexists(path) and not path.is_file():
        raise DataError(f"{path} {what_is_at(path)}, and the archive has a file of that name; move it away")
    return path.is_file()


def _write_all(opened: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    name = Path(opened.filename or "").name
    with byte_bar() as bar:
        task = bar.add_task(f"unpacking {printable(name)}", total=sum(each.file_size for each in members))
        for member in members:
            path = folder / member.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name[:200]}.unpacking")
            try:
                with opened.open(member) as source, open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)  # reads no more than the size of the member
                if temporary.stat().st_size != member.file_size:
                    raise zipfile.BadZipFile(f"{printable(member.filename)} ends too early")
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            bar.advance(task, member.file_size)
