"""Where a command is told to write: what is wrong with the place is said before the work, not after it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime.files import StrPath, nearest_folder, what_is_at


def check_output_file(
    flag: str, path: StrPath | None, endings: tuple[str, ...] = (), reads: Iterable[StrPath | None] = ()
) -> None:
    """ConfigError unless a file can be written at `path`, the value of `flag`; None is no file to write.

    Its name must end in one of `endings` where some are given. `reads` are files that the same command reads or writes
    for other purposes. A file that is there is replaced.
    """
    if path is None:
        return
    if endings and not str(path).endswith(endings):
        raise ConfigError(f"{flag} {path} must end in {' or '.join(endings)}")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ConfigError(f"{flag} {path} {what_is_at(path)}, not a file to write; give the name of a file")
    for other in reads:
        if other is not None and os.path.realpath(path) == os.path.realpath(other):
            raise ConfigError(f"{flag} {path} is a file that this command uses itself; give another name")
    _check_folder(flag, path, nearest_folder(path))


def check_output_folder(flag: str, path: StrPath | None) -> None:
    """ConfigError unless files can be written into the folder `path`, the value of `flag`, which need not exist."""
    if path is not None:
        _check_folder(flag, path, nearest_folder(Path(path) / "file"))


def _check_folder(flag: str, path: StrPath, folder: Path) -> None:
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except OSError:
        is_folder = False
    if not is_folder:
        raise ConfigError(f"{flag} {path}: {folder} {what_is_at(folder)}, not a folder to write into")
    if not os.access(folder, os.W_OK | os.X_OK) or not _takes_files(folder):
        raise ConfigError(f"{flag} {path}: {folder} may not be written to; choose another place")


def _takes_files(folder: Path) -> bool:
    """Permissions say nothing of a file system that takes no files."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
