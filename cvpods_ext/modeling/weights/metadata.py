"""What a file holds beside its tensors, as plain values that can be printed and written as JSON."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import torch

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.arrays import ArrayRecord, DTypeRecord
from cvpods_ext.modeling.weights.names import Function
from cvpods_ext.modeling.weights.tensors import Storage, StorageType

_MOST_VALUES = 200_000
_DEEPEST = 100
_LARGEST = 1 << 1023


def plain(value: Any) -> Any:
    """Replace stand-ins in nested containers by what they stand for, tuples by lists, namespaces by dicts.

    WeightsError if the values are nested too deeply, too many (a container that refers to itself has no end), or a
    number is beyond floats.
    """
    return _Plain().of(value, 0)


class _Plain:
    """Counts what it visits: a value that is referred to twice is visited twice."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, value: Any, depth: int) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES or depth > _DEEPEST:
            raise WeightsError(
                f"the values beside its tensors are more than {_MOST_VALUES:,} or nested more than {_DEEPEST} deep"
            )
        if isinstance(value, types.SimpleNamespace):
            value = vars(value)
        if isinstance(value, dict):
            return {_leaf(key): self.of(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.of(item, depth + 1) for item in value]
        return _leaf(value)


def _leaf(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be printed
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise WeightsError("it holds a whole number that is beyond floats")
    if isinstance(value, ArrayRecord):
        return value.array
    if isinstance(value, DTypeRecord | StorageType | torch.dtype):
        return str(value.dtype if isinstance(value, DTypeRecord | StorageType) else value)
    if isinstance(value, Storage):
        return value.values
    return value.name if isinstance(value, Function) else value


def versions_of(state: Any) -> dict[str, int | None]:
    """The versions of layers that torch hangs on a state dict; whatever is none is left out."""
    recorded = getattr(state, "_metadata", None)
    if not isinstance(recorded, dict):
        return {}
    return sound_versions({name: value.get("version") for name, value in recorded.items() if isinstance(value, dict)})


def sound_versions(recorded: Any) -> dict[str, int | None]:
    """The entries of `recorded` that say a version: layer names with small numbers or None."""
    if not isinstance(recorded, Mapping):
        return {}
    return {
        name: version
        for name, version in recorded.items()
        if isinstance(name, str) and (version is None or (type(version) is int and abs(version) < 1000))
    }
