"""The Python objects that a pickled weights file may name, each a checked function or an inert value of ours."""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.arrays import ArrayRecord, DTypeRecord, raw_bytes, scalar
from cvpods_ext.modeling.weights.budget import Budget
from cvpods_ext.modeling.weights.tensors import STORAGE_TYPES, StorageType, rebuild, rebuild_untyped

_ENTRY_BYTES = 96  # of a set or dict, about
_MODULES = {
    "__builtin__": "builtins",
    "numpy.core.multiarray": "numpy",
    "numpy._core.multiarray": "numpy",
    "numpy.core.numeric": "numpy",
    "numpy._core.numeric": "numpy",
}
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
# Types that tensors with attributes are pickled with; the tensor alone is kept.
_TENSOR_TYPES = {("torch.nn.parameter", "Parameter"): "Parameter", ("torch", "Tensor"): "Tensor"}
_KEYS = (str, bytes, int, float, bool, type(None))


class RefusedGlobal(WeightsError):
    """The file asks for a Python object that is no tensor, array or plain container."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"it asks for the Python object {name[:200]}, which is neither a tensor, a numpy array nor a plain "
            "container. Nothing was run. If you trust the file, open it with the program that wrote it and save only "
            "the tensors: torch.save({'model': model.state_dict()}, 'weights.pth')"
        )
        self.name = name


class Function(NamedTuple):
    """A function of ours under the name that the file calls it by."""

    name: str
    call: Callable[..., Any]


class Names:
    """Resolves the names of one file; what its functions allocate counts against the `budget`.

    `nested` reads a torch file that is a value of a plain pickle.
    """

    def __init__(self, budget: Budget, nested: Callable[[bytearray, Budget], Any] | None) -> None:
        self._budget, self._nested = budget, nested
        functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("builtins", "set"): lambda items=(): set(self._items(items)),
            ("builtins", "frozenset"): lambda items=(): frozenset(self._items(items)),
            ("builtins", "bytes"): _no_bytes,
            ("builtins", "bytearray"): self._bytearray,
            ("builtins", "complex"): _complex,
            ("collections", "OrderedDict"): lambda pairs=(): OrderedDict(self._pairs(pairs)),
            ("collections", "Counter"): lambda pairs=(): dict(self._pairs(pairs)),
            ("argparse", "Namespace"): types.SimpleNamespace,
            ("numpy", "ndarray"): ArrayRecord,
            ("numpy", "_reconstruct"): ArrayRecord,
            ("numpy", "dtype"): DTypeRecord,
            ("numpy", "scalar"): scalar,
            ("numpy", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encode,
            ("torch", "Size"): lambda sizes=(): expect(sizes, tuple),
            ("torch", "device"): lambda *parts: ":".join(f"{part!s:.40}" for part in parts),
            ("torch.storage", "_load_from_bytes"): self._torch_file,
            ("torch._utils", "_rebuild_tensor"): lambda *arguments: rebuild(budget, *arguments),
            ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: rebuild(budget, *arguments),
            ("torch._utils", "_rebuild_tensor_v3"): lambda *arguments: rebuild_untyped(budget, *arguments),
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
            ("torch._tensor", "_rebuild_from_type_v2"): lambda function, _, arguments, *state: call(
                function, arguments
            ),
        }
        self._known: dict[tuple[str, str], Any] = {
            key: Function(".".join(key), function) for key, function in functions.items()
        }
        self._known |= {("torch", name): StorageType(dtype) for name, dtype in STORAGE_TYPES.items()}
        self._known["torch.storage", "UntypedStorage"] = StorageType(torch.uint8)
        self._known |= _TENSOR_TYPES

    def find(self, module: str, name: str) -> Any:
        """What a name stands for; RefusedGlobal for any other."""
        module = _MODULES.get(module, module)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) not in self._known:
            raise RefusedGlobal(f"{module}.{name}")
        return self._known[module, name]

    def _items(self, items: Any) -> list[Any]:
        items = expect(items, list, tuple, set, frozenset)
        self._budget.spend(_ENTRY_BYTES * len(items))
        return [hashable(item) for item in items]

    def _pairs(self, pairs: Any) -> list[tuple[Any, Any]]:
        pairs = expect(pairs, list, tuple, dict)
        self._budget.spend(_ENTRY_BYTES * len(pairs))
        return [(hashable(key), value) for key, value in (pairs.items() if isinstance(pairs, dict) else pairs)]

    def _bytearray(self, raw: Any = b"", encoding: str = "latin-1") -> bytearray:
        if not isinstance(raw, bytes | bytearray | str):  # a number would be a length
            raise WeightsError(f"it makes a bytearray of a {type(raw).__name__}")
        self._budget.spend(len(raw))
        return bytearray(raw_bytes(raw))

    def _encode(self, text: Any, encoding: str = "latin1") -> bytes:
        """How Python 3 writes bytes in protocol 2."""
        if encoding not in ("latin1", "latin-1"):
            raise RefusedGlobal(f"_codecs.encode with {encoding!r:.40}")
        self._budget.spend(len(expect(text, str)))
        return text.encode("latin1")

    def _from_buffer(self, raw: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> ArrayRecord:
        """Arrays of pickle protocol 5."""
        record = ArrayRecord()
        record.fill(raw, dtype, shape, order, self._budget)
        return record

    def _torch_file(self, raw: Any) -> Any:
        """How a plain pickle holds the storage of a tensor."""
        if self._nested is None or not isinstance(raw, bytes | bytearray):
            raise WeightsError("it holds a torch file where none belongs")
        self._budget.spend(len(raw))
        return self._nested(bytearray(raw), self._budget)


def call(function: Any, arguments: Any) -> Any:
    """Call a function of ours with arguments out of a file."""
    if not isinstance(function, Function):
        raise WeightsError(f"it calls a {type(function).__name__}")
    return function.call(*expect(arguments, tuple))


def expect(value: Any, *kinds: type) -> Any:
    """The value, if it is of exactly one of these types."""
    if type(value) not in kinds:
        raise WeightsError(f"it uses a {type(value).__name__} as if it were a {kinds[0].__name__}")
    return value


def hashable(key: Any) -> Any:
    """A key made of plain values: to hash tuples nested in each other may take for ever."""
    if type(key) in _KEYS or (type(key) is tuple and all(type(part) in _KEYS for part in key)):
        return key
    raise WeightsError(f"it uses a {type(key).__name__} as a key")


def _no_bytes() -> bytes:
    """Python 3 writes empty bytes as a call of `bytes()` in protocols 0 to 2."""
    return b""


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    return complex(expect(real, float, int), expect(imaginary, float, int))
