"""What a load did, in words that fit on one screen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

_MOST_LINES = 12


class Mismatch(NamedTuple):
    """A tensor whose name fits and whose shape does not; the model keeps its initial values."""

    name: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {list(self.in_file)} in the file, {list(self.in_model)} in the model"


@dataclass(frozen=True)
class LoadReport:
    """The fate of every tensor: model names for all lists but `unexpected`, which has the file's names.

    `recomputed` are tables that the model computes from its config and that the file holds for another input size.
    """

    source: str
    loaded: list[str]
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    skipped: list[Mismatch] = field(default_factory=list)
    recomputed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether file and model agree in every tensor."""
        return not (self.missing or self.unexpected or self.skipped)

    def summary(self) -> str:
        """Counts on the first line, then what did not fit, grouped by prefix, and notes."""
        total = len(self.loaded) + len(self.missing) + len(self.skipped)
        lines = [f"loaded {len(self.loaded)} of {total} tensors from {self.source}"]
        if self.missing:
            lines += [f"left at their initial values ({len(self.missing)}):", *_indent(grouped(self.missing))]
        if self.skipped:
            lines += [f"of another shape, not loaded ({len(self.skipped)}):", *_indent(map(str, self.skipped))]
        if self.unexpected:
            lines += [f"in the file only ({len(self.unexpected)}):", *_indent(grouped(self.unexpected))]
        if self.recomputed:
            lines += [
                f"of another input size, computed for this model ({len(self.recomputed)}):",
                *_indent(grouped(self.recomputed)),
            ]
        if self.reshaped:
            lines += [f"reshaped ({len(self.reshaped)}):", *_indent(grouped(self.reshaped))]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def grouped(names: Iterable[str]) -> list[str]:
    """Names that share a module, as one line each: `roi_heads.box_predictor.cls_score.{bias, weight}`.

    Where that gives many lines, whole subtrees are counted instead: `backbone.bottom_up.* (265)`.
    """
    names = sorted(names)
    for depth in (None, 4, 3, 2, 1):
        groups: dict[str, list[str]] = defaultdict(list)
        for name in names:
            parts = name.split(".")
            cut = len(parts) - 1 if depth is None else min(depth, len(parts) - 1)
            groups[".".join(parts[:cut])].append(".".join(parts[cut:]))
        if len(groups) <= _MOST_LINES or depth == 1:
            return [_group(prefix, rest, depth is None) for prefix, rest in groups.items()]
    return []


def _group(prefix: str, rest: list[str], spell_out: bool) -> str:
    dotted = f"{prefix}." if prefix else ""
    if len(rest) == 1:
        return dotted + rest[0]
    if spell_out and len(rest) <= 6:
        return f"{dotted}{{{', '.join(rest)}}}"
    return f"{dotted}* ({len(rest)})"


def _indent(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    shown = [f"  {line}" for line in lines[:_MOST_LINES]]
    return shown + ([f"  ... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else [])
