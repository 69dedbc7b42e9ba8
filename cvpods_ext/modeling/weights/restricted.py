"""Unpickling that builds tensors, arrays and plain containers, and can do nothing else.

A pickle is a program: every GLOBAL opcode names a callable and REDUCE calls it. Only the names below are resolved,
and the ones that numpy writes resolve to inert stand-ins instead of numpy's own functions: `dtype.__setstate__` and
`ndarray.__setstate__` trust their arguments, so that a crafted file could turn raw bytes into object pointers.
"""

from __future__ import annotations

import collections
import io
import pickle
import types
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from torch import Tensor

from cvpods_ext.errors import WeightsError

_KINDS = "biufcSU"  # numbers, booleans and strings; never objects or records


class RefusedGlobal(WeightsError):
    """The file asks for a Python object that is no tensor, array or plain container."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"it asks for the Python object {name}, which is neither a tensor, a numpy array nor a plain container. "
            "Nothing was run. If you trust the file, open it with the program that wrote it and save only the "
            "tensors: torch.save({'model': model.state_dict()}, 'weights.pth')"
        )
        self.name = name


class DTypeRecord:
    """Stands in for `numpy.dtype`: takes a type code and a byte order, ignores every other part of the state."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str):
            raise WeightsError("it describes an array type by something that is no text")
        self.dtype = np.dtype(text)
        if self.dtype.kind not in _KINDS:
            raise WeightsError(f"it holds an array of type {text!r}; only arrays of numbers or strings are read")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise WeightsError(f"it holds an array of byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class ArrayRecord:
    """Stands in for `numpy.ndarray` and its constructors until the whole file has been read."""

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0, dtype=np.float32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, raw = state[-4:]
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: Any, dtype: DTypeRecord, shape: tuple[int, ...], order: Any) -> None:
        """Copy the bytes; numpy checks that they are as many as shape and type need."""
        self.array = np.frombuffer(_bytes(raw), dtype.dtype).reshape(shape, order=order).copy()


def _bytes(raw: Any) -> bytes:
    """Raw data as Python 2 (str), Python 3 (bytes) and protocol 5 (buffers) keep it."""
    if isinstance(raw, str):
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray | pickle.PickleBuffer):
        raise WeightsError(f"it fills an array from a {type(raw).__name__} instead of bytes")
    return bytes(raw)


def scalar(dtype: DTypeRecord, raw: str | bytes = b"") -> Any:
    """Stands in for numpy's scalar constructor: gives a plain Python number or string."""
    return np.frombuffer(_bytes(raw), dtype.dtype, count=1)[0].item()


def no_bytes() -> bytes:
    """Python 3 writes empty bytes as a call of `bytes()` in protocols 0 to 2."""
    return b""


_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def torch_safe_globals() -> list[Any]:
    """What `torch.load(weights_only=True)` may resolve beyond its own list, as (stand-in, qualified name)."""
    stand_ins: list[Any] = [(ArrayRecord, "numpy.ndarray"), (DTypeRecord, "numpy.dtype"), (no_bytes, "builtins.bytes")]
    for module in _NUMPY_MODULES:
        stand_ins += [(ArrayRecord, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    return [*stand_ins, (types.SimpleNamespace, "argparse.Namespace")]


class RestrictedUnpickler(pickle.Unpickler):
    """Reads plain pickles, those of Python 2 included.

    Everything that `find_class` returns is a type of C (attributes cannot be set on it), a bound method (likewise) or
    a record with `__setstate__`, so that a BUILD opcode cannot alter anything that outlives the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Resolve an allowed name; RefusedGlobal for any other."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if module in _NUMPY_MODULES:
            module = "numpy"
        allowed: dict[tuple[str, str], Any] = {
            ("builtins", "set"): set,
            ("builtins", "frozenset"): frozenset,
            ("builtins", "bytes"): self._no_bytes,
            ("builtins", "bytearray"): bytearray,
            ("builtins", "complex"): complex,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("argparse", "Namespace"): types.SimpleNamespace,
            ("numpy", "ndarray"): ArrayRecord,
            ("numpy", "dtype"): DTypeRecord,
            ("numpy", "_reconstruct"): ArrayRecord,
            ("numpy", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("numpy._core.numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encode,
            ("torch.storage", "_load_from_bytes"): self._storage,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
        }
        if (module, name) not in allowed:
            raise RefusedGlobal(f"{module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        """Plain pickles keep nothing outside themselves."""
        raise WeightsError("it refers to data outside the file")

    def _no_bytes(self) -> bytes:
        return no_bytes()

    def _scalar(self, dtype: DTypeRecord, raw: str | bytes = b"") -> Any:
        return scalar(dtype, raw)

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """How Python 3 writes bytes in protocol 2."""
        if encoding != "latin1":
            raise RefusedGlobal(f"_codecs.encode with {encoding!r}")
        return text.encode("latin1")

    def _from_buffer(self, raw: Any, dtype: DTypeRecord, shape: tuple[int, ...], order: str, *_: Any) -> ArrayRecord:
        """Arrays of pickle protocol 5."""
        record = ArrayRecord()
        record.fill(raw, dtype, shape, order)
        return record

    def _storage(self, raw: bytes) -> Any:
        return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)

    def _tensor(self, storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        if not isinstance(storage, torch.storage.TypedStorage):
            raise WeightsError("it builds a tensor from something that is no storage")
        return torch.empty(0, dtype=storage.dtype).set_(storage.untyped(), offset, size, stride)

    def _parameter(self, data: Tensor, *_: Any) -> Tensor:
        return data


def resolve_records(value: Any) -> Any:
    """Replace the stand-ins in nested plain containers by arrays and types."""
    if isinstance(value, ArrayRecord):
        return value.array
    if isinstance(value, DTypeRecord):
        return str(value.dtype)
    if isinstance(value, types.SimpleNamespace):
        return resolve_records(vars(value))
    if isinstance(value, dict):
        return {key: resolve_records(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve_records(item) for item in value]
    return value
