"""Changing a config: by `override(BASE, ...)` in config.py, by `key=value` on the command line.

Both go through the same check: unknown keys and wrong types are refused with the nearest known name.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import json
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cvpods_ext.config.schema import PROVENANCE_FIELDS, Config
from cvpods_ext.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Config)
AnyDataclass = TypeVar("AnyDataclass", bound=Any)


def override(base: AnyConfig, **sections: Any) -> AnyConfig:
    """A config that differs from `base` only in what is given: sections as dicts, top-level fields as values.

    Raises ConfigError for unknown keys and wrong types. The result remembers `base` and what was written.
    """
    changed = _replace(base, sections, prefix="")
    return dataclasses.replace(changed, base=base, written=dict(_flatten_written(sections)))


def apply_overrides(config: AnyConfig, assignments: Iterable[str]) -> AnyConfig:
    """Apply `section.key=value` strings; values are Python literals, anything else is a string.

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
    return _replace(config, values, prefix="")


def flatten(config: Config) -> dict[str, Any]:
    """Every setting as `section.key -> value`, without provenance."""
    flat: dict[str, Any] = {}
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
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _field_names(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value) if field.name not in PROVENANCE_FIELDS]


def _flatten_written(sections: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in sections.items():
        if isinstance(value, Mapping):
            yield from _flatten_written(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


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


def _replace(node: AnyDataclass, values: Mapping[str, Any], prefix: str) -> AnyDataclass:
    """A copy of the dataclass `node` with checked `values`; nested mappings go into nested dataclasses."""
    hints = get_type_hints(type(node))
    known = _field_names(node)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(_unknown_key(f"{prefix}{key}", key, known))
        current = getattr(node, key)
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            checked[key] = _replace(current, value, f"{prefix}{key}.")
        else:
            checked[key] = _check(f"{prefix}{key}", value, hints[key], current)
    return dataclasses.replace(node, **checked)


def _unknown_key(path: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f": did you mean {close[0]!r}?" if close else "."
    return f"unknown config key {path!r}{hint} (known here: {', '.join(known)})"


def _check(path: str, value: Any, hint: Any, current: Any) -> Any:
    """`value` as its annotated type; lists become tuples and ints floats, nothing else is converted."""
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
            return _MISMATCH
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            return _MISMATCH
        items = tuple(_convert(item, kind) for item, kind in zip(value, inner, strict=True))
        return _MISMATCH if any(item is _MISMATCH for item in items) else items
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and hint is not bool:
        return _MISMATCH
    return value if isinstance(value, hint) else _MISMATCH


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    return str(hint) if origin else hint.__name__
