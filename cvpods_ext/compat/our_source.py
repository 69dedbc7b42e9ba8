"""config.py and net.py in our form, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvpods_ext.config import bases, flatten
from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.config.decay import Decay
from cvpods_ext.config.schema import Config
from cvpods_ext.errors import ConfigError

_WIDEST = 100  # characters of a line
_DETECTION_BASES = ("MASK_RCNN_LVIS1", "MASK_RCNN_LVIS05", "DISALIGN_LVIS1", "DISALIGN_LVIS05", "RCNN_COCO")


@dataclass(frozen=True)
class Network:
    """What net.py returns: a call with its arguments, one a line, and the imports that it needs, by module."""

    returns: str
    arguments: tuple[str, ...]
    imports: Mapping[str, tuple[str, ...]]
    config: str
    first: tuple[str, ...] = field(default=())
    """Lines before the call."""


def net_source(title: str, network: Network) -> str:
    """The text of net.py."""
    lines = [f'"""{title}."""', ""]
    lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(network.imports.items())]
    lines += ["", "", f"def build_model(cfg: {network.config}):", '    """Build the network that config.py trains."""']
    lines += [f"    {line}" for line in network.first]
    lines += [f"    return {network.returns}(", *(f"        {each}," for each in network.arguments), "    )", ""]
    return "\n".join(lines)


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
    imports.append("from cvpods_ext.config.override import override")
    if any(f"decay={decay}" in line for line in arguments):
        imports.append(f"from cvpods_ext.config.decay import {decay[:-1]}")
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
    """Name, module and value of the base from which the fewest settings differ."""
    if isinstance(config, ClassificationConfig):
        return "ClassificationConfig", "cvpods_ext.config.classification", ClassificationConfig()
    candidates: dict[str, Config] = {name: getattr(bases, name) for name in _DETECTION_BASES}

    def differing(name: str) -> int:
        theirs = flatten(candidates[name])
        return sum(theirs[key] != value for key, value in values.items() if key in theirs)

    best = min(candidates, key=differing)
    return best, bases.__name__, candidates[best]


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
    if isinstance(value, tuple):
        return _items(list(map(_text, value)))
    raise ConfigError(f"{value!r:.80} cannot be written into a config.py")
