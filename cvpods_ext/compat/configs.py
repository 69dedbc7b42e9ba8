"""The config object of cvpods folders: a nested dict whose keys are attributes as well, merged level by level."""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

from cvpods_ext.compat import defaults
from cvpods_ext.errors import ConfigError


class AttributeDict(dict[str, Any]):
    """Keys are attributes; a mapping that is stored becomes a copy of this kind, also one directly within a sequence.

    A missing key raises AttributeError when it is read as an attribute, KeyError otherwise.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this config has no key {name!r} (it has {', '.join(map(str, self))})") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _stored(value))

    def update(self, *others: Any, **values: Any) -> None:
        """As `dict.update`, with every value stored as by an assignment."""
        for key, value in dict(*others, **values).items():
            self[key] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """As `dict.setdefault`."""
        if name not in self:
            self[name] = default
        return self[name]

    def merge(self, other: Mapping[str, Any]) -> None:
        """Put `other` over this: mappings into mappings, any other value in place of the whole old one."""
        for key, value in other.items():
            if isinstance(value, Mapping) and isinstance(self.get(key), AttributeDict):
                self[key].merge(value)
            else:
                self[key] = deepcopy(value)


def _stored(value: Any) -> Any:
    if isinstance(value, Mapping):
        node = AttributeDict()
        node.update(value)
        return node
    if type(value) in (list, tuple):
        return type(value)(_stored(item) if isinstance(item, Mapping) else item for item in value)
    return value


class BaseConfig(AttributeDict):
    """The settings of cvpods; a subclass adds its own by `_register_configuration`. Constructible without arguments."""

    _defaults: ClassVar[dict[str, Any]] = defaults.BASE

    def __init__(self, d: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__()
        for level in reversed(type(self).__mro__):
            if "_defaults" in vars(level):
                self.merge(vars(level)["_defaults"])
        for level in reversed(type(self).__mro__[: type(self).__mro__.index(BaseConfig)]):
            # class attributes are keys as well
            self.merge({k: v for k, v in vars(level).items() if not k.startswith("_") and _is_setting(v)})
        self._register_configuration({**(d or {}), **kwargs})

    def _register_configuration(self, cfg: Mapping[str, Any]) -> None:
        """Merge `cfg`, then move keys of older folders to where they are read now."""
        self.merge(cfg)
        _upgrade(self)

    def merge_from_list(self, pairs: Sequence[str]) -> None:
        """Set keys from "A.B", "value", ...: values are Python literals where they can be read as such.

        A value takes the type of the one before. Raises ConfigError for an unknown key and a value that does not fit.
        """
        if len(pairs) % 2:
            raise ConfigError(f"overrides come in pairs, KEY VALUE; {pairs[-1]!r} has no value")
        for key, text in zip(pairs[::2], pairs[1::2], strict=True):
            *parents, last = key.split(".")
            node: Any = self
            for part in parents:
                node = node.get(part) if isinstance(node, AttributeDict) else None
            if not isinstance(node, AttributeDict) or last not in node:
                close = difflib.get_close_matches(key, flat(self), n=1, cutoff=0.5)
                hint = f": did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"unknown key {key!r}{hint} An override changes a key that the config has")
            node[last] = _typed(key, _literal(text), node[last])

    def diff(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """The nested keys whose value here differs from that in `cfg`, or that it lacks."""
        return _differences(self, cfg)

    def find(self, key: str, show: bool = True, color: str = "") -> dict[str, Any]:
        """`flat` keys of which a part matches the regular expression `key`, with their values."""
        return {path: value for path, value in flat(self).items() if re.search(key, path)}

    def link_log(self, link_name: str = "log") -> None:
        """Make `link_name` in the current folder a link to OUTPUT_DIR; a real file or folder of that name is kept."""
        link, target = Path(link_name), Path(self["OUTPUT_DIR"])
        if link.is_symlink() and os.readlink(link) != str(target):
            link.unlink()
        if not link.exists() and not link.is_symlink():
            link.symlink_to(target)

    def __repr__(self) -> str:
        rows = {path: repr(value) for path, value in flat(self).items()}
        width = max(map(len, rows), default=0)
        return "\n".join(f"{path:{width}}  {value}" for path, value in rows.items())


class BaseDetectionConfig(BaseConfig):
    """With the settings of detectors."""

    _defaults: ClassVar[dict[str, Any]] = defaults.DETECTION


class RCNNConfig(BaseDetectionConfig):
    """With those of two-stage detectors, on one feature map."""

    _defaults: ClassVar[dict[str, Any]] = defaults.RCNN


class RCNNFPNConfig(RCNNConfig):
    """The same on a pyramid."""

    _defaults: ClassVar[dict[str, Any]] = defaults.RCNN_FPN


class BaseClassificationConfig(BaseConfig):
    """With the settings of image classification."""

    _defaults: ClassVar[dict[str, Any]] = defaults.CLASSIFICATION


def _is_setting(value: Any) -> bool:
    return isinstance(value, str | bytes | bool | int | float | list | tuple | Mapping | None)


def find_key(param_dict: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The entries of `param_dict` whose key matches the regular expression `key`, at any depth."""
    found: dict[str, Any] = {}
    for name, value in param_dict.items():
        if re.search(key, name):
            found[name] = value
        elif isinstance(value, Mapping) and (inner := find_key(value, key)):
            found[name] = inner
    return found


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every setting as "A.B.C" -> value; an empty mapping counts as a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in here.items():
        other = there.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if inner := _differences(value, other):
                found[key] = inner
        elif key not in there or value != other:
            found[key] = value
    return found


def _literal(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _typed(key: str, value: Any, old: Any) -> Any:
    """`value` in the type of `old`; unlike cvpods a fraction stays one, and no text becomes True."""
    if old is None or value is None or type(value) is type(old):
        return value
    if isinstance(old, bool) or isinstance(value, bool) or isinstance(old, Mapping):
        raise ConfigError(f"{key} is {old!r}, so {value!r} cannot be its value")
    if isinstance(old, int | float) and isinstance(value, int | float):
        return float(value) if isinstance(old, float) else value
    if isinstance(old, list | tuple):
        items = value if isinstance(value, list | tuple) else [value]
        return type(old)(items)
    if isinstance(old, str):
        return str(value)
    raise ConfigError(f"{key} is {old!r}, so {value!r} cannot be its value")


# Where keys of older folders are read now.
_FLAT_SOLVER = {
    "LR_SCHEDULER": ("MAX_ITER", "MAX_EPOCH", "STEPS", "WARMUP_FACTOR", "WARMUP_ITERS", "WARMUP_METHOD", "GAMMA"),
    "OPTIMIZER": ("BASE_LR", "BIAS_LR_FACTOR", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "MOMENTUM"),
}
_FLAT_SIZES = {
    "MIN_SIZE_TRAIN": ("TRAIN_PIPELINES", "short_edge_length"),
    "MIN_SIZE_TRAIN_SAMPLING": ("TRAIN_PIPELINES", "sample_style"),
    "MAX_SIZE_TRAIN": ("TRAIN_PIPELINES", "max_size"),
    "MIN_SIZE_TEST": ("TEST_PIPELINES", "short_edge_length"),
    "MAX_SIZE_TEST": ("TEST_PIPELINES", "max_size"),
}


def _upgrade(config: AttributeDict) -> None:
    """Move flat keys of SOLVER into their group, and sizes of INPUT into the first resize of their pipeline."""
    solver, inputs = config.get("SOLVER", {}), config.get("INPUT", {})
    for group, keys in _FLAT_SOLVER.items():
        for key in [key for key in keys if key in solver]:
            solver[group][key] = solver.pop(key)
    for key, (pipeline, argument) in _FLAT_SIZES.items():
        if key in inputs:
            _set_in_resize(inputs["AUG"], pipeline, argument, inputs.pop(key))


def _set_in_resize(aug: AttributeDict, pipeline: str, argument: str, value: Any) -> None:
    for name, arguments in _steps(aug[pipeline]):
        if name == "ResizeShortestEdge":
            arguments[argument] = value
            return


def _steps(pipeline: Sequence[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for step in pipeline:
        yield step[0], step[1]
