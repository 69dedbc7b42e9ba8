"""A folder with config.py and net.py becomes an `Experiment`.

Both files are imported by location under a package name of their own, so that no other module called `config` can be
taken for them, folder names may hold dots, and a helper in the folder is imported as `from .helper import X`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvpods_ext.config import playground
from cvpods_ext.config.override import apply_overrides, override
from cvpods_ext.config.schema import Config
from cvpods_ext.errors import ConfigError

PACKAGE_PREFIX = "pods_experiment_"  # of the names under which the files of experiment folders are imported
# Folders that were written for cvpods are loaded by a module that is named here and imported only for such a folder,
# so that commands, workers and reports open every folder alike while nothing of this package depends on that one.
OLD_FOLDERS = "cvpods_ext.compat.folder"
_IMPORTS_CVPODS = re.compile(r"^\s*(from|import)\s+cvpods(\.|\s|$)", re.MULTILINE)


@dataclass(frozen=True)
class Experiment:
    """A loaded folder: its config as it will run, and where its output goes."""

    folder: Path
    config: Config
    overrides: tuple[str, ...] = ()
    smoke: bool = False

    @property
    def name(self) -> str:
        """The folder's name is the experiment's name."""
        return self.folder.name

    @property
    def output(self) -> Path:
        """`output=` if given, else PODS_OUTPUT/<name>, else outputs/ in the folder; a smoke run has its own.

        An experiment of an installed package writes into outputs/<name> of the current folder instead.
        """
        return output_folder(self.folder, self.config.output, self.smoke)

    @property
    def is_as_published(self) -> bool:
        """Whether this is the folder's own run: nothing shrunk, nothing overridden, output in its own place."""
        return not self.smoke and not self.overrides and self.output == self.folder / "outputs"

    def notes(self) -> list[str]:
        """What a user should see once about how the folder was read; nothing for a folder of ours."""
        return []

    def weights_to_test(self, own: Path | None) -> Path | None:
        """What a test takes where no file is named: `own`, the newest weights of the run; None if there are none.

        A folder of another program may name weights, or hold those of a run of that program.
        """
        return own

    def take_over_earlier_run(self) -> None:
        """Before a run is resumed: make a run of another program in this folder one that can be."""

    def build_model(self) -> Any:
        """Call the folder's `build_model(cfg)`; returns its torch module."""
        build: Callable[[Config], Any] | None = getattr(_load(self.folder, "net"), "build_model", None)
        if build is None:
            raise ConfigError(f"{self.folder / 'net.py'} does not define build_model(cfg)")
        return build(self.config)


def output_folder(folder: Path, output: str = "", smoke: bool = False) -> Path:
    """Where the experiment in `folder` writes, see `Experiment.output`."""
    if output:
        return Path(os.path.realpath(folder / output))
    root = os.environ.get("PODS_OUTPUT") or ("outputs" if playground.is_installed(folder) else "")
    base = Path(os.path.realpath(root)) / folder.name if root else folder / "outputs"
    return base / "smoke" if smoke else base


def sources_sha256(folder: Path) -> str:
    """Digest of the names and contents of all Python files of an experiment folder: which network and config it is.

    Hidden folders and outputs/ are left out.
    """
    digest = hashlib.sha256()
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py") if path.is_file()}
    for name in sorted(paths):
        if not any(part.startswith(".") or part == "outputs" for part in name.split("/")[:-1]):
            content = paths[name].read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def load_experiment(folder: str | Path = ".", overrides: Sequence[str] = (), smoke: bool = False) -> Experiment:
    """Import config.py of `folder`, shrink it for a smoke run if asked, then apply `key=value` overrides.

    A folder written for cvpods takes pairs KEY VALUE as well, see `compat`. Raises ConfigError.
    """
    folder = Path(os.path.realpath(folder))  # Path.resolve raises an error of its own where links lead in a circle
    for name in ("config.py", "net.py"):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder} is not an experiment: {name} is missing. "
                "Run inside a folder such as playground/lvis1.0/<name>, or pass --dir."
            )
    if imports_cvpods(folder):
        return importlib.import_module(OLD_FOLDERS).load(folder, overrides, smoke)
    config = getattr(_load(folder, "config"), "config", None)
    if not isinstance(config, Config):
        raise ConfigError(f"{folder / 'config.py'} must define `config = override(BASE, ...)`, got {config!r}")
    config = replace(override(config, **config.smoke_settings()) if smoke else config, folder=str(folder))
    return Experiment(folder, apply_overrides(config, overrides), tuple(overrides), smoke)


def imports_cvpods(folder: Path) -> bool:
    """Whether the folder was written for cvpods: config.py, or a module beside it that it imports by its bare name."""
    path = folder / "config.py"
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    beside = [other for other in folder.glob("*.py") if re.search(rf"^\s*(from|import)\s+{other.stem}\b", text, re.M)]
    texts = [text, *(other.read_text(encoding="utf-8", errors="replace") for other in beside)]
    return any(map(_IMPORTS_CVPODS.search, texts))


def _load(folder: Path, module: str) -> types.ModuleType:
    """Import `<folder>/<module>.py` as a member of the folder's private package."""
    package = PACKAGE_PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    if package not in sys.modules:
        parent = types.ModuleType(package, f"The experiment in {folder}")
        parent.__path__ = [str(folder)]
        sys.modules[package] = parent
    try:
        return importlib.import_module(f"{package}.{module}")
    except ConfigError as error:
        raise ConfigError(f"{folder / module}.py: {error}") from None
