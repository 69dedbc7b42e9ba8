"""A config as the text of a config.py: the nearest of our bases, and what differs from it."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import Any

from cvpods_ext.config.decay import Decay
from cvpods_ext.config.override import flatten
from cvpods_ext.config.schema import Config
from cvpods_ext.errors import ConfigError

_WIDEST = 100  # characters of a line
_DATA_SETS = {
    "DatasetFiles": "cvpods_ext.config.schema",
    "ImageFiles": "cvpods_ext.config.classification",
    "LabelMapFiles": "cvpods_ext.config.segmentation",
}
_PACKAGE = __name__.rpartition(".")[0]
_BASES = tuple(
    f"{_PACKAGE}.{name}"
    for name in ("bases", "bases_eva02", "bases_vitdet", "bases_dino", "bases_classification", "bases_segmentation")
)


def config_source(heading: str, config: Config) -> str:
    """The text of config.py: the nearest of our bases, and what differs from it. ConfigError for a value without text.

    What a config has and our bases have not, such as settings of old folders alone, is left out.
    """
    values = flatten(config)
    name, module, base = _nearest(config, values)
    theirs = flatten(base)
    sections: dict[str, dict[str, str]] = {}
    for key in (key for key, value in values.items() if key in theirs and value != theirs[key]):
        section, _, field_name = key.rpartition(".")
        sections.setdefault(section, {})[field_name] = _text(_value(config, key))
    top = [f"    {key}={text}," for key, text in sections.pop("", {}).items()]
    arguments = [line for section, fields in sections.items() for line in _section(section, fields)]
    decay = f"{type(config.schedule.decay).__name__}("
    imports = [f"from {module} import {name}" + (" as BASE" if name.isupper() else "")]
    imports.append(f"from {_PACKAGE}.override import override")
    if any(f"decay={decay}" in line for line in arguments):
        imports.append(f"from {_PACKAGE}.decay import {decay[:-1]}")
    if sources := sorted({name for name in _DATA_SETS if any(f"={name}(" in line for line in arguments)}):
        imports += [f"from {_DATA_SETS[name]} import {name}" for name in sources]
    start = "BASE" if name.isupper() else f"{name}()"
    body = [f"config = override(\n    {start},", *arguments, *top, ")"] if arguments or top else [f"config = {start}"]
    return "\n".join([f'"""{heading}\n"""', "", *sorted(imports), "", *body, ""])


def _section(name: str, fields: Mapping[str, str]) -> list[str]:
    """One line, or one for each field where that is too long."""
    line = f"    {name}=dict({', '.join(f'{key}={text}' for key, text in fields.items())}),"
    if len(line) <= _WIDEST and "\n" not in line:
        return [line]
    return [f"    {name}=dict(", *(f"        {key}={text}," for key, text in fields.items()), "    ),"]


def _items(items: list[str]) -> str:
    """A tuple, over several lines in a section where it is long."""
    line = f"({', '.join(items)}{',' * (len(items) == 1)})"
    if len(line) <= _WIDEST - 20:
        return line
    return "".join(["(\n", *(f"            {item},\n" for item in items), "        )"])


def _nearest(config: Config, values: Mapping[str, Any]) -> tuple[str, str, Config]:
    """Name, module and value of the base from which the fewest settings differ; the bare class is one of them."""
    kind: Any = _public(type(config))
    candidates: list[tuple[str, str, Config]] = [(kind.__name__, kind.__module__, kind())]
    for module in _BASES:
        candidates += [
            (name, module, base)
            for name, base in vars(importlib.import_module(module)).items()
            if isinstance(base, Config) and base.task == config.task and isinstance(config.model, type(base.model))
        ]

    def differing(candidate: tuple[str, str, Config]) -> int:
        theirs = flatten(candidate[2])
        return sum(theirs[name] != value for name, value in values.items() if name in theirs)

    return min(candidates, key=differing)


def _public(kind: type[Config]) -> type[Config]:
    """The class of this package's configs that `kind` is or extends."""
    return next(each for each in kind.__mro__ if each.__module__.startswith(_PACKAGE))


def _value(config: Config, key: str) -> Any:
    section, _, name = key.rpartition(".")
    return getattr(getattr(config, section) if section else config, name)


def _text(value: Any) -> str:
    if isinstance(value, Decay):
        return str(value)
    if isinstance(value, str):
        raw = "\\" in value and '"' not in value and not value.endswith("\\")
        return f'r"{value}"' if raw else json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        defaults = {one.name: one.default for one in dataclasses.fields(value)}
        shown = [f"{name}={_text(each)}" for name, each in changed.items() if each != defaults[name]]
        return f"{type(value).__name__}({', '.join(shown)})"
    if isinstance(value, tuple):
        return _items(list(map(_text, value)))
    raise ConfigError(f"{value!r:.80} cannot be written into a config.py")
