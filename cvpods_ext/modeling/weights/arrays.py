"""Inert stand-ins for numpy's types while a pickle is read.

`dtype.__setstate__` and `ndarray.__setstate__` of numpy itself trust their arguments, so that a crafted file could
turn raw bytes into object pointers.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.budget import Budget

_CODE = re.compile(r"[<>|=]?([biufcSU])\d{1,8}|\?")  # numbers, booleans and strings; never objects or records


class DTypeRecord:
    """Stands in for `numpy.dtype`: takes a type code and a byte order, ignores every other part of the state."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str):
            raise WeightsError("it describes an array type by something that is no text")
        if not _CODE.fullmatch(text):
            raise WeightsError(f"it holds an array of type {text[:40]!r}; only arrays of numbers or strings are read")
        self.dtype = np.dtype(text)

    def build(self, state: Any, budget: Budget) -> None:
        """Take the byte order out of the state that numpy pickles."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        order = order.decode("latin1") if isinstance(order, bytes) else order
        if order not in ("<", ">", "|", "="):
            raise WeightsError(f"it holds an array of byte order {order!r:.40}")
        self.dtype = self.dtype.newbyteorder(order)


class ArrayRecord:
    """Stands in for `numpy.ndarray` and its constructors until the whole file has been read."""

    __slots__ = ("_array",)

    def __init__(self, *_: Any) -> None:
        self._array: np.ndarray | None = None

    @property
    def array(self) -> np.ndarray:
        """The array; WeightsError if the file never filled it."""
        if self._array is None:
            raise WeightsError("it holds an array without values")
        return self._array

    def build(self, state: Any, budget: Budget) -> None:
        """Fill the array from the state that numpy pickles: (version, shape, type, column major, bytes)."""
        if not isinstance(state, tuple) or len(state) < 4:
            raise WeightsError("it fills an array from something that is no state of an array")
        shape, dtype, fortran, raw = state[-4:]
        self.fill(raw, dtype, shape, "F" if fortran else "C", budget)

    def fill(self, raw: Any, dtype: Any, shape: Any, order: Any, budget: Budget) -> None:
        """Copy the bytes; numpy checks that they are as many as shape and type need."""
        if not isinstance(dtype, DTypeRecord) or not is_shape(shape) or order not in ("C", "F"):
            raise WeightsError("it holds an array whose type, shape or order is none")
        raw = raw_bytes(raw)
        budget.spend(len(raw))
        self._array = np.frombuffer(raw, dtype.dtype).reshape(shape, order=order).copy(order="K")


def is_shape(value: Any) -> bool:
    """Whether `value` is a tuple of at most 32 counts."""
    return isinstance(value, tuple) and len(value) <= 32 and all(type(n) is int and 0 <= n < 1 << 62 for n in value)


def raw_bytes(raw: Any) -> bytes | bytearray:
    """Raw data as Python 2 (str), Python 3 (bytes) and protocol 5 (buffers) keep it."""
    if isinstance(raw, str):
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):
        raise WeightsError(f"it fills an array from a {type(raw).__name__} instead of bytes")
    return raw


def scalar(dtype: Any, raw: Any = b"") -> Any:
    """Stands in for numpy's scalar constructor: gives a plain Python number or string."""
    if not isinstance(dtype, DTypeRecord):
        raise WeightsError("it holds a number whose type is none")
    return np.frombuffer(raw_bytes(raw), dtype.dtype, count=1)[0].item()
