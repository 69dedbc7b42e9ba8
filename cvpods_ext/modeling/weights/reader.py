"""One reader for every kind of weights file; the content decides how it is read, not the name.

A file may come from anybody: nothing in it is run, memory and time are bounded by its size, and whatever is wrong with
it is a WeightsError.
"""

from __future__ import annotations

import json
import mmap
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import torch_file
from cvpods_ext.modeling.weights.arrays import ArrayRecord
from cvpods_ext.modeling.weights.budget import Budget
from cvpods_ext.modeling.weights.metadata import plain, sound_versions, versions_of
from cvpods_ext.modeling.weights.names import RefusedGlobal
from cvpods_ext.modeling.weights.restricted import RestrictedUnpickler
from cvpods_ext.runtime.files import what_is_at

_WRAPPERS = ("model", "state_dict", "blobs", "model_state", "module")
_AGAIN = "Fetch the file again and compare its size or checksum with the source"
_MOST_HEADER_BYTES = 16 << 20  # of a safetensors file: a hundred thousand tensors
_LONGEST_NAME = 1000
_TAR_MAGIC = 257, b"ustar"

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file and everything else it held.

    `state` maps names as they are in the file to CPU tensors. `metadata` holds the plain values beside it (iteration,
    author, ...) and, under "versions", the layer versions that torch records with a state dict. `ema` is the averaged
    copy where the file has one (EVA-02), else empty. `format` is "torch", "pickle" or "safetensors".
    """

    state: dict[str, Tensor]
    metadata: dict[str, Any]
    format: str
    ema: dict[str, Tensor] = field(default_factory=dict)


def read(path: str | Path) -> Checkpoint:
    """Read a .pth, .pkl or .safetensors file without ever running code from it.

    Tensors of torch files are memory-mapped: pages are read when they are copied into a model.
    WeightsError, with the remedy, when the file is absent, cut short, of another kind, asks for Python objects, or is
    made to use up memory or time.
    """
    path = Path(path)
    kind = _kind(path)
    return _guarded(path, kind, lambda: _read(path, kind))


def read_training_state(path: Path) -> dict[str, Any]:
    """The nested dict that a checkpoint of ours is, as it was saved; its tensors are copies in memory.

    WeightsError as `read`, also if the file holds anything but a dict with a whole number `iteration`.
    """
    kind = _kind(path)
    content = _guarded(path, kind, lambda: _load(path, kind, copy=True))
    if type(content) is not dict or type(content.get("iteration")) is not int:
        raise WeightsError(f"{path} is no checkpoint of a run of ours: it has no iteration")
    return content


def _guarded(path: Path, kind: str, body: Callable[[], T]) -> T:
    """Call `body`; whatever a damaged file makes it raise becomes a WeightsError that names the file."""
    try:
        return body()
    except RefusedGlobal as error:
        raise WeightsError(f"{path} is refused: {error}") from None
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used: {error}") from None
    except Exception as error:  # damage may make Python, numpy, torch, zipfile and zlib raise nearly anything
        raise WeightsError(f"{path} cannot be used: {_what_is_wrong(error, kind)}") from None


def _what_is_wrong(error: Exception, kind: str) -> str:
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
    if kind == "pickle":
        if isinstance(error, EOFError) or "expected" in reason or "truncated" in reason or "not enough data" in reason:
            return f"the pickle ends too early ({reason}). {_AGAIN}"
        return (
            f"it is neither a torch file, a pickle nor safetensors, or is damaged ({reason}). "
            "Give a .pth, .pkl or .safetensors file"
        )
    return f"it is a {kind} file that is cut short or damaged ({reason}). {_AGAIN}"


def _kind(path: Path) -> str:
    """Tell the format from the first bytes."""
    if not path.is_file():
        found = what_is_at(path)
        raise WeightsError(f"weights file {path} {found}. Give the path of a .pth, .pkl or .safetensors file")
    try:
        with open(path, "rb") as file:
            start = file.read(_TAR_MAGIC[0] + len(_TAR_MAGIC[1]))
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read ({error.strerror or error})") from None
    if len(start) < 16:
        raise WeightsError(f"{path} has only {path.stat().st_size} bytes. {_AGAIN}")
    if start.lstrip()[:1] == b"<":
        raise WeightsError(f"{path} is a web page, not weights: the download failed. {_AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is only a git-lfs pointer. Run `git lfs pull` in its repository")
    if start[8:9] == b"{" and start[5:8] == b"\0\0\0":
        return "safetensors"
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path} is a torch file that was cut short. {_AGAIN}")
        return "torch"
    if start.startswith(torch_file.LEGACY_START):
        return "torch"
    if start[_TAR_MAGIC[0] :] == _TAR_MAGIC[1]:
        raise WeightsError(f"{path} was written by torch before 0.4 (a tar file). Open and save it with a newer torch")
    return "pickle"


def _read(path: Path, kind: str) -> Checkpoint:
    return _read_safetensors(path) if kind == "safetensors" else _checkpoint(_load(path, kind), kind)


def _load(path: Path, kind: str, copy: bool = False) -> Any:
    """The object that was saved."""
    if kind == "safetensors":
        raise WeightsError("it is a safetensors file, which holds weights only")
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    budget = Budget(len(data))
    if kind == "torch":
        return torch_file.load(data, budget, copy)
    return RestrictedUnpickler(data, budget, nested=torch_file.load).load()


def _read_safetensors(path: Path) -> Checkpoint:
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > min(_MOST_HEADER_BYTES, path.stat().st_size - 8):
        raise WeightsError(f"its header claims {header_bytes:,} bytes, more than there are or a file needs. {_AGAIN}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            state = {_name(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"it is a damaged safetensors file ({str(error)[:160]}). {_AGAIN}") from None
    versions = sound_versions(_json(metadata.pop("versions", "")))
    return Checkpoint(state, {**plain(metadata), **({"versions": versions} if versions else {})}, "safetensors")


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}


def _checkpoint(content: Any, kind: str) -> Checkpoint:
    """Find the state dict inside whatever was saved around it."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"it holds a {type(content).__name__}, not a dict of tensors. Save model.state_dict()")
    state: Any = content
    around: dict[str, Any] = {}
    for name in _WRAPPERS:
        if isinstance(content.get(name), Mapping):
            state = content[name]
            around = {key: value for key, value in content.items() if key != name}
            break
    ema = around.pop("ema_state", None)
    tensors = _tensors(state)
    if not tensors:
        keys = f"its keys are {_some(state)}" if state else "it is empty"
        raise WeightsError(f"it holds no tensors; {keys}. Save model.state_dict()")
    metadata = {str(key): value for key, value in plain(around).items()}
    versions = versions_of(state) or sound_versions(metadata.pop("versions", None))
    if versions:
        metadata["versions"] = versions
    for key, wanted in (("family", str), ("iteration", int)):
        if key in metadata and type(metadata[key]) is not wanted:
            del metadata[key]
    return Checkpoint(tensors, metadata, kind, _tensors(ema) if isinstance(ema, Mapping) else {})


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors and numeric arrays of a state dict by name; other values are dropped."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        value = value.array if isinstance(value, ArrayRecord) else value
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=False))
        if isinstance(value, Tensor):
            name = _name(str(key))
            if name in tensors:
                raise WeightsError(f"two of its tensors have the name {name!r}")
            tensors[name] = value.detach()
    return tensors


def _name(name: str) -> str:
    """A name that can be printed; others would reach the terminal, or fail there."""
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise WeightsError(f"it holds a tensor whose name is no short printable text ({name!a:.80})")
    return name


def _some(state: Mapping[Any, Any], count: int = 5) -> str:
    names = [f"{name!a:.80}" for name in list(state)[:count]]
    return ", ".join(names) + (", ..." if len(state) > count else "") if names else "none"
