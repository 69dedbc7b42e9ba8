"""Unpickling that builds tensors, arrays and plain containers, and can do nothing else.

A pickle is a program for a stack machine: GLOBAL names a Python object and REDUCE calls it. This machine knows the
opcodes that data needs and the few names of `names.py`; what it calls are functions of ours, which check their
arguments. It is written out instead of derived from `pickle.Unpickler`, since that one trusts the file in small ways as
well: it allocates whatever lengths and memo positions say, hashes keys nested without end, and calls `__setstate__`
and `extend` of any object. Memory and time are bounded by the size of the file and by the number of opcodes.
"""

from __future__ import annotations

import pickletools
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.arrays import ArrayRecord, DTypeRecord
from cvpods_ext.modeling.weights.budget import Budget
from cvpods_ext.modeling.weights.names import Names, RefusedGlobal, call, expect, hashable
from cvpods_ext.modeling.weights.tensors import Storage

_MOST_OPCODES = 2_000_000  # seconds; the largest checkpoints have some hundred thousand


class Stream(Protocol):
    """What a pickle is read from; a read beyond the end gives what there is, without allocating more."""

    def read(self, count: int, /) -> bytes:
        """At most `count` bytes."""
        ...

    def readline(self) -> bytes:
        """The bytes up to and with the next line end."""
        ...


_CONSTANTS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_IGNORED = frozenset(("PROTO", "FRAME"))
_BUILDABLE = (ArrayRecord, DTypeRecord)


class RestrictedUnpickler:
    """Reads one pickle, of Python 2 or 3, from where `file` stands to just behind its STOP.

    `persistent` turns the ids by which torch refers to storages into Storage, `nested` reads a torch file that is a
    value of the pickle (so tensors get into plain pickles); without them these are refused.
    Raises WeightsError; what a damaged stream makes Python raise (ValueError, IndexError, ...) passes through.
    """

    def __init__(
        self,
        file: Stream,
        budget: Budget,
        persistent: Callable[[Any], Storage] | None = None,
        nested: Callable[[bytearray, Budget], Any] | None = None,
    ) -> None:
        self._file, self._budget, self._persistent = file, budget, persistent
        self._names = Names(budget, nested)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._operations = {
            name.removeprefix("_op_").upper(): getattr(self, name) for name in dir(self) if name.startswith("_op_")
        }

    def load(self) -> Any:
        """The object of the pickle; arrays are still ArrayRecords, their types DTypeRecords."""
        push = self._stack.append
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._file)):  # type: ignore[arg-type]
            name = opcode.name
            if name in _CONSTANTS:
                push(argument)
            elif name in _NEW:
                push(_NEW[name]())
            elif name == "STOP":
                return self._pop()
            elif name not in _IGNORED:
                operation = self._operations.get(name)
                if operation is None:
                    raise WeightsError(f"it uses the pickle opcode {name}, which no program that saves weights needs")
                operation(argument)
            if count > _MOST_OPCODES:
                raise WeightsError(f"its pickle has more than {_MOST_OPCODES:,} opcodes, which no weights file needs")
        raise EOFError("no STOP")

    # ---- the stack ---------------------------------------------------------------------------------------------------

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("the stack is empty")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _op_mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _op_pop(self, _: Any) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _op_dup(self, _: Any) -> None:
        self._stack.append(self._top())

    def _op_put(self, index: int) -> None:
        self._memo[index] = self._top()

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _op_get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _op_binget = _op_long_binget = _op_get

    # ---- containers --------------------------------------------------------------------------------------------------

    def _op_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _op_tuple1(self, _: Any) -> None:
        self._stack.append((self._pop(),))

    def _op_tuple2(self, _: Any) -> None:
        second, first = self._pop(), self._pop()
        self._stack.append((first, second))

    def _op_tuple3(self, _: Any) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self._stack.append((first, second, third))

    def _op_list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _op_append(self, _: Any) -> None:
        value = self._pop()
        expect(self._top(), list).append(value)

    def _op_appends(self, _: Any) -> None:
        items = self._since_mark()
        expect(self._top(), list).extend(items)

    def _op_dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set_items(items)

    def _op_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _op_setitems(self, _: Any) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = expect(self._top(), dict, OrderedDict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[hashable(key)] = value

    def _op_additems(self, _: Any) -> None:
        items = self._since_mark()
        expect(self._top(), set).update(map(hashable, items))

    def _op_frozenset(self, _: Any) -> None:
        self._stack.append(frozenset(map(hashable, self._since_mark())))

    # ---- names and calls ---------------------------------------------------------------------------------------------

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self._names.find(module, name))

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(self._names.find(expect(module, str), expect(name, str)))

    def _op_inst(self, argument: str) -> None:
        raise RefusedGlobal(argument.replace(" ", "."))

    def _op_reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(call(function, arguments))

    _op_newobj = _op_reduce

    def _op_build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, _BUILDABLE):
            target.build(state, self._budget)
        elif isinstance(target, types.SimpleNamespace):
            vars(target).update({expect(key, str): value for key, value in expect(state, dict).items()})
        elif isinstance(target, OrderedDict):  # of a state dict: the versions of its layers
            target._metadata = expect(state, dict).get("_metadata")  # type: ignore[attr-defined]
        else:
            raise WeightsError(f"it sets the inner state of a {type(target).__name__}")

    def _op_binpersid(self, _: Any) -> None:
        if self._persistent is None:
            raise WeightsError("it refers to data outside the file")
        self._stack.append(self._persistent(self._pop()))
