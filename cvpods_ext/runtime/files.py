"""Files that are either complete or absent, what a full disk means, and content hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvpods_ext.errors import DataError, StorageError, UserError

StrPath = str | os.PathLike[str]

REMEDY = "Make room or choose another place, then run the command again; what was there before is as it was"
_OTHERWISE = "Choose another place or make this one writable, then run the command again"
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_FULL_OR_BROKEN = _FULL | {errno.EROFS, errno.EIO}
_NOT_ALLOWED = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR)
)
# How torch, safetensors and numpy report a failed write when they do not pass the system's error on.
_FAILED_WRITE = re.compile(
    r"No space left on device|Disk quota exceeded|unexpected pos|file write failed|\d+ requested and \d+ written"
)


@contextmanager
def writing(path: StrPath, remedy: str = REMEDY) -> Iterator[None]:
    """Around whatever writes `path`: a full or broken disk becomes a StorageError that says what to do.

    Errors that come from elsewhere pass unchanged; so does the StorageError of a file written inside.
    """
    try:
        yield
    except Exception as error:
        failed = None if isinstance(error, StorageError) else _failed_write(error)
        if failed is None:
            raise
        raise storage_error(path, failed, remedy) from error


def storage_error(path: StrPath, error: OSError, remedy: str = REMEDY) -> StorageError:
    """Why `path` cannot be written; with the space that a full disk has left; `remedy` is for full and broken disks."""
    reason = error.strerror or str(error)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        place = path if os.path.lexists(path) else nearest_folder(path)
        reason = f"{reason}: {place} {what_is_at(place)}, not a folder"
    if error.errno in _FULL:
        disk = path if os.path.isdir(path) else nearest_folder(path)
        free = shutil.disk_usage(disk).free / 2**30
        return StorageError(f"cannot write {path} ({reason}; {free:.2f} GiB free). {remedy}")
    return StorageError(f"cannot write {path} ({reason}). {remedy if error.errno in _FULL_OR_BROKEN else _OTHERWISE}")


def nearest_folder(path: StrPath) -> Path:
    """The first folder above `path` that exists."""
    folder = Path(path).absolute().parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def for_the_user(error: Exception) -> UserError | None:
    """What to tell of an error that ends a command, None if it is a defect of ours and needs its traceback.

    Beside a UserError that is a full disk or a file that the system refuses, where no writer or reader noticed.
    """
    if isinstance(error, UserError):
        return error
    failed = _failed_write(error)
    if failed is not None and failed.errno in _FULL:
        return storage_error(failed.filename or Path.cwd() / "its files", failed)
    if isinstance(error, OSError) and error.errno in _NOT_ALLOWED and error.filename is not None:
        reason = error.strerror or str(error)
        return StorageError(f"cannot use {os.fsdecode(error.filename)} ({reason}). Mend its path or its permissions")
    return None


def what_is_at(path: StrPath) -> str:
    """Words for a path that should be a file and is none: "does not exist", "is a folder", ..."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ENOENT and os.path.islink(path):
            return f"is a link to {os.readlink(path)}, which does not exist"
        known = {errno.ENOENT: "does not exist", errno.ELOOP: "is a link that leads in a circle"}
        return known.get(error.errno or 0, f"cannot be looked at ({error.strerror or error})")
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISREG, "a file"))
    return f"is {next((word for test, word in kinds if test(mode)), 'a device or socket')}"


def _failed_write(error: BaseException) -> OSError | None:
    """The failed write that `error` is, or was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL_OR_BROKEN:
            return OSError(seen.errno, os.strerror(seen.errno or 0), seen.filename)
        if _FAILED_WRITE.search(str(seen)):
            return OSError(errno.ENOSPC, "the write was cut short")
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def atomic_path(path: StrPath, remedy: str = REMEDY) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it on success, so that no reader sees half a file.

    If the body raises (a full disk, an interrupt) the temporary file is removed and `path` stays as it was.
    Raises StorageError, with the `remedy`, when the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise storage_error(path, error, remedy) from error
    os.close(handle)
    temporary = Path(name)
    try:
        with writing(path, remedy):
            yield temporary
        _publish(temporary, path, remedy)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _publish(temporary: Path, path: Path, remedy: str) -> None:
    try:
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(path, error, remedy) from error


def _umask() -> int:
    """The process umask; mkstemp makes files private, while results are meant to be shared."""
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: StrPath, text: str, remedy: str = REMEDY) -> None:
    """Write a UTF-8 text file atomically; StorageError as `atomic_path`."""
    with atomic_path(path, remedy) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: StrPath, value: Any, remedy: str = REMEDY) -> None:
    """Write indented JSON atomically; NaN is refused since most readers cannot parse it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", remedy)


def append_line(path: StrPath, line: str, remedy: str = REMEDY) -> None:
    """Add one line to a text file; a line that a full disk cuts off is taken back, and StorageError is raised."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0, opener=_without_waiting) as file:
            before, data = file.tell(), (line + "\n").encode("utf-8")
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise storage_error(path, error, remedy) from error


def _without_waiting(path: str, flags: int) -> int:
    """Open for writing; a pipe that nobody reads is an OSError instead of a wait."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def read_json(path: StrPath, max_bytes: int = 1 << 26) -> Any:
    """Parse a JSON file of our own.

    Raises DataError, whatever the damage: no JSON, no text, nested without end, more than `max_bytes`.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file")
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(f"{path} has {size:,} bytes, more than the {max_bytes:,} that such a file may have")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{path} is not valid JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({str(error)[:120]})") from None


def sha256_of(path: StrPath, chunk_bytes: int = 1 << 22) -> str:
    """Hex digest of a file's content, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(chunk_bytes):
            digest.update(chunk)
    return digest.hexdigest()
