"""Tensors over the storages of a file, checked against what the storage really holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.arrays import is_shape
from cvpods_ext.modeling.weights.budget import Budget

STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
}
_TENSOR_BYTES = 1024  # of the Python object and what it holds, about


@dataclass(frozen=True)
class StorageType:
    """The type of a storage's values, as a pickle names it."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Storage:
    """All values of a storage, (N,)."""

    values: Tensor


@dataclass(frozen=True)
class StorageId:
    """How torch refers to a storage: type, key and number of values."""

    dtype: torch.dtype
    key: str
    count: int

    @property
    def nbytes(self) -> int:
        """Size of the values."""
        return self.count * self.dtype.itemsize

    @classmethod
    def of(cls, identity: Any) -> StorageId:
        """Check a persistent id: ("storage", type, key, device, number of values, ...)."""
        if isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage":
            _, kind, key, _, count = identity[:5]
            if isinstance(kind, StorageType) and isinstance(key, str) and type(count) is int and 0 <= count < 1 << 48:
                return cls(kind.dtype, key, count)
        raise WeightsError("it refers to a storage in a way that torch does not")


def rebuild(budget: Budget, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, as torch pickles tensors; WeightsError unless the storage holds every value of it.

    Values that a tensor shows more than once (stride 0, windows that overlap) are refused: a few bytes could pass for
    gigabytes as soon as somebody copies them.
    """
    if not isinstance(storage, Storage):
        raise WeightsError("it builds a tensor from something that is no storage")
    if not is_shape(size) or not is_shape(stride) or len(size) != len(stride) or not is_shape((offset,)):
        raise WeightsError("it holds a tensor whose size, stride or offset is none")
    budget.spend(_TENSOR_BYTES)
    count = 1
    for length in size:
        count *= length
    if count == 0:
        return torch.empty(size, dtype=storage.values.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= storage.values.numel():
        raise WeightsError(
            f"it holds a tensor of shape {list(size)} that needs {last + 1:,} values of a storage that has "
            f"{storage.values.numel():,}"
        )
    if count > 1 and not _shows_each_value_once(size, stride):
        raise WeightsError(
            f"it holds a tensor of shape {list(size)} that shows values more than once (strides {list(stride)}). "
            "Save a copy of it: tensor.contiguous()"
        )
    return storage.values.as_strided(size, stride, offset)


def rebuild_untyped(
    budget: Budget, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any,
    *_: Any
) -> Tensor:  # fmt: skip
    """A tensor of one of torch's newer types, whose storage is bytes."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise WeightsError("it builds a tensor from something that is no storage")
    return rebuild(budget, Storage(storage.values.view(torch.uint8).view(dtype)), offset, size, stride)


def _shows_each_value_once(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether each dimension steps over everything that the smaller steps reach."""
    reached = 0
    for step, length in sorted((s, n) for s, n in zip(stride, size, strict=True) if n > 1):
        if step <= reached:
            return False
        reached += (length - 1) * step
    return True
