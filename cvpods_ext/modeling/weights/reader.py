"""One reader for every kind of weights file; the content decides how it is read, not the name."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.restricted import (
    ArrayRecord,
    RefusedGlobal,
    RestrictedUnpickler,
    resolve_records,
    torch_safe_globals,
)

_LEGACY_TORCH_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number of torch < 1.6
_WRAPPERS = ("model", "state_dict", "blobs", "model_state", "module")
_AGAIN = "Fetch the file again and compare its size or checksum with the source"


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
    WeightsError, with the remedy, when the file is absent, cut short, of another kind, or asks for Python objects.
    """
    path = Path(path)
    kind = _kind(path)
    try:
        if kind == "safetensors":
            return _read_safetensors(path)
        content = _read_torch(path) if kind == "torch" else _read_pickle(path)
        return _checkpoint(content, kind)
    except RefusedGlobal as error:
        raise WeightsError(f"{path} is refused: {error}") from None
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used: {error}") from None


def _kind(path: Path) -> str:
    """Tell the format from the first bytes."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"weights file {path} {what}. Give the path of a .pth, .pkl or .safetensors file")
    with open(path, "rb") as file:
        start = file.read(64)
    if len(start) < 16:
        raise WeightsError(f"{path} has only {path.stat().st_size} bytes. {_AGAIN}")
    if start.lstrip()[:1] == b"<":
        raise WeightsError(f"{path} is a web page, not weights: the download failed. {_AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is only a git-lfs pointer. Run `git lfs pull` in its repository")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        return "safetensors"
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path} is a torch file that was cut short. {_AGAIN}")
        return "torch"
    return "torch" if start.startswith(_LEGACY_TORCH_START) else "pickle"


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"it is a damaged safetensors file ({_one_line(error)}). {_AGAIN}") from None
    metadata = dict(metadata)
    versions = _json_object(metadata.pop("versions", ""))
    return Checkpoint(state, {**metadata, **({"versions": versions} if versions else {})}, "safetensors")


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_torch(path: Path) -> Any:
    """Read what torch.save wrote, in the zip format or the one before 1.6."""
    try:
        with torch.serialization.safe_globals(torch_safe_globals()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except WeightsError:
        raise
    except Exception as error:  # torch raises half a dozen types for a damaged file
        refused = re.search(r"GLOBAL (\S+\.\w+) (was not an allowed|whose module)", str(error))
        if refused:
            raise RefusedGlobal(refused[1]) from None
        raise WeightsError(f"torch cannot read it: it is cut short or damaged ({_one_line(error)}). {_AGAIN}") from None


def _read_pickle(path: Path) -> Any:
    with open(path, "rb") as file:
        try:
            return RestrictedUnpickler(file).load()
        except WeightsError:
            raise
        except EOFError:
            raise WeightsError(f"the pickle ends too early. {_AGAIN}") from None
        except Exception as error:  # a damaged opcode stream can raise nearly anything
            reason = _one_line(error)
            if isinstance(error, pickle.UnpicklingError) and "truncated" in reason:
                raise WeightsError(f"the pickle ends too early ({reason}). {_AGAIN}") from None
            raise WeightsError(
                f"it is neither a torch file, a pickle nor safetensors, or is damaged ({reason}). "
                "Give a .pth, .pkl or .safetensors file"
            ) from None


def _one_line(error: Exception) -> str:
    """The gist of a message; torch's own are pages long and advise loading without protection."""
    first = str(error).strip().split("WeightsUnpickler error: ")[-1].splitlines()
    return f"{type(error).__name__}: {first[0][:160]}" if first else type(error).__name__


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
    metadata = {str(key): resolve_records(value) for key, value in around.items()}
    versions = getattr(state, "_metadata", None)
    if isinstance(versions, Mapping):
        metadata["versions"] = {key: value.get("version") for key, value in versions.items()}
    return Checkpoint(tensors, metadata, kind, _tensors(ema) if isinstance(ema, Mapping) else {})


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors and numeric arrays of a state dict by name; other values are dropped."""
    tensors = {}
    for name, value in state.items():
        value = value.array if isinstance(value, ArrayRecord) else value
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=False))
        if isinstance(value, Tensor):
            tensors[str(name)] = value.detach()
    return tensors


def _some(state: Mapping[Any, Any], count: int = 5) -> str:
    names = [repr(name) for name in list(state)[:count]]
    return ", ".join(names) + (", ..." if len(state) > count else "") if names else "none"
