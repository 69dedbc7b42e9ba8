"""Experiments by name: the folders of the playground that lies beside the package, in a wheel inside of it."""

from __future__ import annotations

import difflib
import fnmatch
from functools import cache
from pathlib import Path

from cvpods_ext.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = _PACKAGE / "_playground"  # setup.py puts it there
PLAYGROUND = INSTALLED if INSTALLED.is_dir() else _PACKAGE.parent / "playground"


def list_models(pattern: str = "*") -> list[str]:
    """Names of the experiments that match, sorted; "*" stands for anything, and one is added at the end.

    ["eva02-base-p14_in21k-pre_3rdparty_in1k", ...] for "eva02*". Names that two data sets share are given once.
    """
    return fnmatch.filter(sorted(_folders()), pattern if pattern.endswith("*") else f"{pattern}*")


def find(name: str | Path) -> Path:
    """The folder of an experiment, given as a path or by its name; ConfigError with close names if there is none."""
    if (Path(name) / "config.py").is_file():
        return Path(name)
    text = str(name)
    found = _folders().get(text, [])
    if not found and "/" in text:  # such as lvis1.0/<name>, where two data sets have one of that name
        found = [folder for folders in _folders().values() for folder in folders if _below(folder) == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{text} is the name of {len(found)} experiments: {', '.join(map(_below, found))}")
    close = difflib.get_close_matches(text, _folders(), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else "; cvpods_ext.list_models() names all"
    raise ConfigError(f"{text} is neither an experiment folder nor the name of one{hint}")


def is_installed(folder: Path) -> bool:
    """Whether an experiment folder belongs to an installed package, into which nothing is written."""
    return folder.resolve().is_relative_to(INSTALLED)


@cache
def _folders() -> dict[str, list[Path]]:
    """Folders with a config.py by name."""
    found: dict[str, list[Path]] = {}
    for config in sorted(PLAYGROUND.glob("*/*/config.py")):
        found.setdefault(config.parent.name, []).append(config.parent)
    return found


def _below(folder: Path) -> str:
    return folder.relative_to(PLAYGROUND).as_posix()
