"""What decides the predictions of a test: only predictions that agree in all of it are continued or evaluated again."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cvpods_ext
from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import PACKAGE_PREFIX, Experiment, sources_sha256
from cvpods_ext.tasks.task import find

# Settings that cannot change a prediction. A task adds those of its evaluation; every other one counts.
WITHOUT_EFFECT = (
    "output",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "keep_best",
    "log_every",
    "picture_every",
    "data.workers",
    "test.every",
    "test.metrics",
    "test.pictures",
)
# Parts of the package that can: not command line, report and evaluation.
_NOT_READ = ("outputs", "results", "results.json", "datasets", "__pycache__")
IMAGE_SIZES = "image_sizes_sha256"  # in this identity, and in results.json
_STATS_AT_ONCE = 16
_LARGEST_FILE = 1 << 20  # bytes; larger files beside net.py are taken for data or weights
_CODE = ("config", "data", "engine", "modeling", "runtime", "structures", "tasks")


def identity(experiment: Experiment, model: nn.Module, weights_sha256: str) -> dict[str, Any]:
    """JSON values that differ whenever predictions may: weights, settings, sources, data, image files, and buffers.

    `model` is the one under test with its weights. Of the test images the sizes of their files are compared.
    """
    task = find(experiment.config.task)
    without_effect = {*WITHOUT_EFFECT, *task.evaluation_settings}
    settings = {key: value for key, value in flatten(experiment.config).items() if key not in without_effect}
    found = {
        "weights_sha256": weights_sha256,
        "data_sha256": task.test_set_sha256(experiment),
        IMAGE_SIZES: _sizes_sha256(task.test_files(experiment)),
        "sources_sha256": sources_sha256(experiment.folder),
        "files_sha256": _files_sha256(experiment),
        "modules_sha256": _modules_sha256(experiment.folder),
        "buffers_sha256": _buffers_sha256(model),
        "code_sha256": _code_sha256(),
        "settings": settings,
    }
    return json.loads(json.dumps(found))  # as it comes back from disk: tuples are lists


def _sizes_sha256(files: Sequence[Path]) -> str:
    """Of the sizes of the files in order. Times differ in every copy of a data set, and contents would take minutes."""
    with ThreadPoolExecutor(_STATS_AT_ONCE) as pool:  # a file system over a network answers each after a while
        sizes = list(pool.map(_size, files))
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _size(file: Path) -> int:
    """In bytes; -1 for one that is absent, which the test will tell of."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _buffers_sha256(model: nn.Module) -> str:
    """Of what net.py computed from elsewhere, such as class counts of a file: buffers that no weights file holds."""
    saved, digest = model.state_dict().keys(), hashlib.sha256()
    for name, buffer in model.named_buffers():
        if name not in saved:
            digest.update(f"{name} {buffer.dtype} {tuple(buffer.shape)}".encode())
            digest.update(buffer.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _files_sha256(experiment: Experiment) -> str:
    """Of small files in the experiment folder that net.py may read numbers from; sources are hashed by themselves."""
    folder, digest = experiment.folder, hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        if any(name.startswith((".", "previous-")) or name in _NOT_READ for name in names):
            continue
        if path.suffix in (".py", ".md") or path.is_relative_to(experiment.output) or not path.is_file():
            continue
        if path.stat().st_size <= _LARGEST_FILE:
            digest.update(f"{'/'.join(names)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _modules_sha256(folder: Path) -> str:
    """Of Python files beside the experiment folder that are loaded, such as a module that several folders share."""
    own, beside = (str(folder), str(Path(cvpods_ext.__file__).parent)), tuple(map(str, folder.parents[:2]))
    skipped = ("__main__", PACKAGE_PREFIX)  # the command itself, and sources of other experiments
    modules = [module for name, module in list(sys.modules.items()) if not name.startswith(skipped)]
    digest = hashlib.sha256()
    for file in sorted({getattr(module, "__file__", None) or "" for module in modules}):
        if file.endswith(".py") and file.startswith(beside) and not file.startswith((*own, sys.prefix)):
            digest.update(Path(file).read_bytes() if Path(file).is_file() else b"")
    return digest.hexdigest()


@cache
def _code_sha256() -> str:
    root, digest = Path(cvpods_ext.__file__).parent, hashlib.sha256()
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
