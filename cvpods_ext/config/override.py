"""Changing a config: by `override(BASE, ...)` in config.py, by `key=value` on the command line.

Both go through the same check: unknown keys and wrong types are refused with the nearest known name.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import inspect
import json
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cvpods_ext.config.decay import Decay
from cvpods_ext.config.schema import PROVENANCE_FIELDS, Config
from cvpods_ext.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Config)
AnyDataclass = TypeVar("AnyDataclass", bound=Any)


def override(base: AnyConfig, **sections: Any) -> AnyConfig:
    """A config that differs from `base` only in what is given: sections as dicts, top-level fields as values.

    Raises ConfigError for unknown keys and wrong types. The result remembers `base` and what was written.
    """
    changed = _replaced(base, sections)
    return dataclasses.replace(changed, base=base, written=dict(_flatten_written(sections)))


def apply_overrides(config: AnyConfig, assignments: Iterable[str]) -> AnyConfig:
    """Apply `section.key=value` strings; values are Python literals, also with fractions, anything else is a string.

    Raises ConfigError for what cannot be read, unknown keys and wrong types.
    All are applied at once, so that values which only fit each other may come in any order; of two for the same key
    the later one counts.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise ConfigError(f"cannot read {assignment!r}: overrides look like schedule.lr=0.01")
        nested: Any = _literal(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(values, nested, prefix="")
    return _replaced(config, values)


def flatten(config: Config) -> dict[str, Any]:
    """The task and every setting as `section.key -> value`, without provenance; a decay is the text of its call."""
    flat: dict[str, Any] = {"task": config.task}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in PROVENANCE_FIELDS:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            flat.update({f"{field.name}.{key}": _plain(getattr(value, key)) for key in _field_names(value)})
        else:
            flat[field.name] = value
    return flat


def changes(config: Config, base: Config) -> dict[str, tuple[Any, Any]]:
    """`key -> (value in base, value here)` for every setting that differs."""
    here, there = flatten(config), flatten(base)
    return {key: (there[key], here[key]) for key in here if here[key] != there[key]}


def fingerprint(config: Config) -> str:
    """Hex sha256 over all settings, so that a result can be traced to what it was made with."""
    return hashlib.sha256(json.dumps(flatten(config), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Decay):
        return str(value)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))  # several data sets
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _field_names(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value) if field.name not in PROVENANCE_FIELDS]


def _flatten_written(sections: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The keys of `flatten` that were written."""
    for section, value in sections.items():
        if isinstance(value, Mapping):
            yield from ((f"{section}.{key}", part) for key, part in value.items())
        else:
            yield section, value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(_Divide().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, ZeroDivisionError):
        return text


class _Divide(ast.NodeTransformer):
    """Replaces 2/3 by its value."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Div):
            upper, lower = ast.literal_eval(node.left), ast.literal_eval(node.right)
            if isinstance(upper, int | float) and isinstance(lower, int | float):
                return ast.Constant(upper / lower)
        return node


def _merge(values: dict[str, Any], later: Mapping[str, Any], prefix: str) -> None:
    """Put `later` over `values`, mapping into mapping."""
    for key, value in later.items():
        before = values.get(key, {})
        if not isinstance(value, Mapping):
            values[key] = value
        elif isinstance(before, dict):
            values[key] = before
            _merge(before, value, f"{prefix}{key}.")
        else:
            inner = next(iter(value), "")
            raise ConfigError(
                f"{prefix}{key} is given as {before!r} and {prefix}{key}.{inner} as well; drop one of them"
            )


def _replaced(config: AnyConfig, values: Mapping[str, Any]) -> AnyConfig:
    """A checked copy of `config`; an unknown key is answered with the nearest of all keys."""
    try:
        return _replace(config, values, prefix="")
    except _UnknownKeyError as error:
        raise ConfigError(error.describe(list(_all_keys(config)))) from None


def _replace(node: AnyDataclass, values: Mapping[str, Any], prefix: str) -> AnyDataclass:
    """A copy of the dataclass `node` with checked `values`; nested mappings go into nested dataclasses."""
    hints = get_type_hints(type(node))
    known = _field_names(node)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise _UnknownKeyError(f"{prefix}{key}", known)
        current = getattr(node, key)
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            checked[key] = _replace(current, value, f"{prefix}{key}.")
        else:
            checked[key] = _check(f"{prefix}{key}", value, hints[key], current)
    return dataclasses.replace(node, **checked)


class _UnknownKeyError(Exception):
    """A key that is not among those `known` where it was looked for."""

    def __init__(self, path: str, known: list[str]) -> None:
        super().__init__(path)
        self.path, self.known = path, known

    def describe(self, keys: list[str]) -> str:
        """The message, with the most likely of all `keys` of the config: by their last part, else by spelling."""
        last = self.path.rpartition(".")[2]
        same = [key for key in keys if key.rpartition(".")[2] == last]
        close = same or difflib.get_close_matches(last, self.known, n=1)
        close = close or difflib.get_close_matches(self.path, keys, n=1)
        hint = f": did you mean {' or '.join(map(repr, close[:3]))}?" if close else "."
        return f"unknown config key {self.path!r}{hint} (known here: {', '.join(self.known)})"


def _all_keys(node: Any, prefix: str = "") -> Iterable[str]:
    for key in _field_names(node):
        yield f"{prefix}{key}"
        if dataclasses.is_dataclass(value := getattr(node, key)):
            yield from _all_keys(value, f"{prefix}{key}.")


def _check(path: str, value: Any, hint: Any, current: Any) -> Any:
    """`value` as its annotated type.

    Lists become tuples, ints floats, one value a tuple where any number of them may stand, and the text of a call such
    as `Cosine(end=0.1)` the object; nothing else is converted.
    """
    converted = _convert(value, hint)
    if converted is _MISMATCH:
        raise ConfigError(f"{path} must be {_describe(hint)} like {current!r}, got {type(value).__name__} {value!r}")
    return converted


_MISMATCH = object()


def _convert(value: Any, hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value if value in arguments else _MISMATCH
    if origin in (Union, types.UnionType):
        results = (_convert(value, argument) for argument in arguments)
        return next((result for result in results if result is not _MISMATCH), _MISMATCH)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            if arguments[-1] is not Ellipsis:
                return _MISMATCH
            value = (value,)
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            return _MISMATCH
        items = tuple(_convert(item, kind) for item, kind in zip(value, inner, strict=True))
        return _MISMATCH if any(item is _MISMATCH for item in items) else items
    if isinstance(value, str) and dataclasses.is_dataclass(hint):
        return _call(value, hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and hint is not bool:
        return _MISMATCH
    return value if isinstance(value, hint) else _MISMATCH


def _call(text: str, hint: Any) -> Any:
    """The object that text like `MultiStep(drops=(2/3, 8/9))` describes, of `hint` or a subclass."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        name, keywords = (node.func, node.keywords) if isinstance(node, ast.Call) else (node, [])
        arguments = {str(keyword.arg): ast.literal_eval(_Divide().visit(keyword.value)) for keyword in keywords}
    except (ValueError, SyntaxError, ZeroDivisionError):
        return _MISMATCH
    kind = next((kind for kind in _kinds(hint) if isinstance(name, ast.Name) and kind.__name__ == name.id), None)
    if kind is None or getattr(node, "args", []) or not set(arguments) <= set(_field_names(kind)):
        return _MISMATCH
    hints = get_type_hints(kind)
    checked = {key: _convert(value, hints[key]) for key, value in arguments.items()}
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    if not needed <= checked.keys() or any(value is _MISMATCH for value in checked.values()):
        return _MISMATCH
    return kind(**checked)


def _kinds(hint: Any) -> list[Any]:
    """`hint` and all classes below it that can be made, each before those below it."""
    below = [kind for subclass in hint.__subclasses__() for kind in _kinds(subclass)]
    return below if inspect.isabstract(hint) else [hint, *below]


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if dataclasses.is_dataclass(hint):
        return " or ".join(f"{kind.__name__}({', '.join(_field_names(kind))})" for kind in _kinds(hint))
    return str(hint) if origin else hint.__name__
