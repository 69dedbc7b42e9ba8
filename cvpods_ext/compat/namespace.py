"""The modules that an old folder sees while it is loaded: `cvpods`, and its own files under their plain names.

Both are there only within `Namespace.names`; before and after, `sys.modules` and `sys.path` are as they were.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import FileFinder, ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from cvpods_ext.compat.stray_names import TolerantLoader
from cvpods_ext.compat.surface import SURFACE
from cvpods_ext.compat.unsupported import explain

CVPODS = "cvpods"
INSTALLED = "PODS_CVPODS"  # "installed": a cvpods that is installed is taken instead of ours


class Namespace:
    """The modules of one folder, each executed once however often `names` is entered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = frozenset(_own_names(folder))
        self._ours = os.environ.get(INSTALLED, "") != "installed"
        self._modules: dict[str, ModuleType] = {}
        self._finder = _Finder(folder, self._own, self._ours)

    @contextmanager
    def names(self) -> Iterator[None]:
        """`cvpods` and the folder's modules can be imported. ConfigError for an import that is not supported."""
        hidden = self._taken()
        sys.modules.update(self._modules)
        sys.meta_path.insert(0, self._finder)
        sys.path.insert(0, str(self.folder))
        try:
            yield
        except ImportError as error:
            raise explain(error, self.folder) from error
        finally:
            sys.path.remove(str(self.folder))
            sys.meta_path.remove(self._finder)
            self._modules = self._taken()
            sys.modules.update(hidden)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The same with the folder as current folder, where the paths of its files start."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with self.names():
                yield
        finally:
            os.chdir(before)

    def load(self, module: str) -> ModuleType:
        """A module of the folder; within `names`."""
        return importlib.import_module(module)

    def set_root(self, root: Path) -> None:
        """Let `cvpods` lie in `root`, beside the folder `datasets` that old folders look for there."""
        package = self._modules.get(CVPODS)
        if package is not None and self._ours:
            place_package(package, root)

    def _taken(self) -> dict[str, ModuleType]:
        """Take the modules under our names out of sys.modules."""
        roots = self._own | {CVPODS} if self._ours else self._own
        taken = [name for name in sys.modules if name.partition(".")[0] in roots]
        return {name: sys.modules.pop(name) for name in taken}


def place_package(package: ModuleType, root: Path) -> None:
    """Give the package a path below `root`; nothing needs to be there, since a finder knows all its modules."""
    path = (root / CVPODS).as_posix()
    package.__path__ = [path]
    package.__file__ = f"{path}/__init__.py"


def _own_names(folder: Path) -> Iterator[str]:
    """Top-level modules of the folder: its files, and its folders with Python files."""
    for path in folder.iterdir():
        name = path.stem if path.suffix == ".py" else path.name
        is_module = path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
        if is_module and name.isidentifier() and name not in sys.stdlib_module_names and name != "cvpods_ext":
            yield name


class _Finder(MetaPathFinder):
    """Finds `cvpods.*` in this package, and the folder's modules in the folder before anywhere else."""

    def __init__(self, folder: Path, own: frozenset[str], ours: bool) -> None:
        self._folder, self._own, self._ours = folder, own, ours

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root = fullname.partition(".")[0]
        if root == CVPODS:
            if self._ours and fullname in SURFACE:
                return spec_from_loader(fullname, _Surface(self._folder), is_package=True)
            return None
        if root not in self._own:
            return None
        places = [str(self._folder)] if path is None else list(path)
        for place in places:
            spec = FileFinder(place, (TolerantLoader, [".py"])).find_spec(fullname)
            if spec is not None:
                return spec
        return PathFinder.find_spec(fullname, places)


class _Surface(Loader):
    """Makes a module of cvpods from the names of `SURFACE`; the objects are those of this package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == CVPODS:
            module.__dict__["__version__"] = "0.1"
            place_package(module, self._folder.parent)
        else:
            module.__path__ = []
        for name, source in SURFACE[module.__name__].items():
            value: Any = getattr(importlib.import_module(source), name)
            setattr(module, name, value)
