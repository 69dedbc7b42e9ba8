"""Settings with several values each, and all their combinations. Imports no torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cvpods_ext.errors import ConfigError

_OPEN, _CLOSE, _QUOTES = "([{", ")]}", "'\""
MOST = 1000  # combinations that are believed to be meant


@dataclass(frozen=True)
class Swept:
    """A setting and its values, as they are typed behind `key=`."""

    key: str
    values: tuple[str, ...]


def parse(assignments: Sequence[str]) -> list[Swept]:
    """`key=a,b,c` -> the key with its values; a comma within brackets or quotes belongs to a value.

    ConfigError for what is no assignment, an empty value, or a key given twice.
    """
    found: list[Swept] = []
    for text in assignments:
        key, separator, values = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"cannot read {text!r}: a setting with several values looks like schedule.lr=0.01,0.02")
        parts = tuple(part.strip() for part in _split(values, text))
        if not all(parts):
            raise ConfigError(f"{text!r} has an empty value")
        if len(set(parts)) < len(parts):
            raise ConfigError(f"{text!r} has a value twice")
        if any(key == one.key for one in found):
            raise ConfigError(f"{key} is given twice; write all its values behind one =")
        found.append(Swept(key, parts))
    return found


def _split(values: str, text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for character in values:
        if quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES:
            quote = character
        elif character in _OPEN + _CLOSE:
            depth += 1 if character in _OPEN else -1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    if depth or quote:
        raise ConfigError(f"{text!r}: brackets or quotes are not closed")
    return parts


def combinations(swept: Sequence[Swept]) -> list[tuple[str, ...]]:
    """Overrides of every run, the last setting changing first. ConfigError for more than a thousand."""
    number = 1
    for one in swept:
        number *= len(one.values)
    if number > MOST:
        raise ConfigError(f"{number:,} combinations; choose fewer values")
    return list(itertools.product(*([f"{one.key}={value}" for value in one.values] for one in swept)))


def folder_name(overrides: Sequence[str]) -> str:
    """A name for a folder of the run; overrides that differ give names that differ."""
    text = ",".join(overrides)
    safe = re.sub(r"[^\w.,=+-]", "_", text)
    return safe if safe == text and len(safe) < 120 else f"{safe[:100]}-{_digest(text)}"


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]
