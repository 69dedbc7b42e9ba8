"""From the name of an image in a json to its path, which may not leave the image folder unless the data set says so."""

from __future__ import annotations

import re
from pathlib import Path

from cvpods_ext.data.paths import DatasetPaths
from cvpods_ext.errors import DataError

_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


def image_file(paths: DatasetPaths, name: str) -> Path:
    """The path of an image; DataError if `name` is absolute or climbs out of the folder by "..".

    A name with backslashes is that of a Windows tool unless a file is called so.
    """
    if leaves_folder(name) and not paths.names_may_leave:
        raise DataError(
            f"{paths.annotations}: file_name {name[:200]!r} leads out of the image folder {paths.images}. If that is "
            "meant, say so by DatasetFiles(..., names_may_leave=True); else make the names relative to the folder."
        )
    if "\\" in name and not (paths.images / name).exists():
        name = name.replace("\\", "/")
    return paths.images / name


def leaves_folder(name: str) -> bool:
    """Whether a name is absolute (also a Windows drive), or has more ".." than folders before them."""
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return True
    if ".." not in name:
        return False
    depth = 0
    for part in re.split(r"[/\\]", name):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return False
