"""Times of the parts of a pass: taken by wrapping functions, kept as JSON, compared as a Markdown table.

A report has the keys setting {name: value}, tables {title: {part: {wall_ms, cpu_ms}}}, memory {what: MiB} and, if
another detector was measured in the same run, beside {title: {part: wall ms}}.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Times = dict[str, dict[str, float]]


class Clock:
    """Wall and processor milliseconds by label, collected by wrapping functions for the time of a measurement."""

    def __init__(self) -> None:
        self.spent: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def part(self, label: str) -> Iterator[None]:
        """Time a block."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        spent = (1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))
        self.spent.setdefault(label, []).append(spent)

    @contextmanager
    def watch(self, parts: Mapping[str, tuple[Any, str]]) -> Iterator[None]:
        """Time every call of `holder.name` under its label."""
        originals = [(holder, name, getattr(holder, name)) for holder, name in parts.values()]
        for (holder, name, original), label in zip(originals, parts, strict=True):
            setattr(holder, name, self._timed(original, label))
        try:
            yield
        finally:
            for holder, name, original in originals:
                setattr(holder, name, original)

    def _timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(label):
                return function(*args, **kwargs)

        return timed

    def times(self, order: Mapping[str, Any], repeat: int) -> Times:
        """Median over the repetitions, in the order of the labels; calls within one repetition are added up."""
        rows: Times = {}
        for label in (label for label in order if label in self.spent):
            spent = self.spent[label]
            calls = max(1, len(spent) // repeat)
            rounds = [spent[i : i + calls] for i in range(0, len(spent), calls)]
            wall, cpu = (statistics.median(sum(one[k] for one in group) for group in rounds) for k in (0, 1))
            rows[label] = {"wall_ms": round(wall, 1), "cpu_ms": round(cpu, 1)}
        return rows


def to_markdown(
    report: Mapping[str, Any], quoted: Mapping[str, Mapping[str, float]], before: Mapping[str, Any] | None = None
) -> str:
    """The report with every figure that can be compared: an earlier report, quoted times, times measured beside.

    `quoted` is {title: {part: wall ms}} of the reference detector. A ratio above 1 means that ours is faster now.
    """
    lines = ["Written by `" + report["setting"]["command"] + "`.", ""]
    lines += [f"- {name}: {value}" for name, value in report["setting"].items() if name != "command"] + [""]
    for title, rows in report["tables"].items():
        earlier = (before or {}).get("tables", {}).get(title, {})
        others = {
            "detectron2, quoted": quoted.get(title, {}),
            "detectron2, beside": report.get("beside", {}).get(title, {}),
        }
        lines += [f"## {title}", "", *table(rows, earlier, {name: column for name, column in others.items() if column})]
    memory = report.get("memory")
    if memory:
        lines += ["## memory", "", "| what | MiB |", "|---|---:|"]
        lines += [f"| {what} | {value:.0f} |" for what, value in memory.items()] + [""]
    return "\n".join(lines)


def table(rows: Times, earlier: Times, others: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of one table; parts within a part stand below it, marked by an arrow."""
    heads = ["part", "wall ms", "CPU ms"]
    heads += ["before, wall ms", "before, CPU ms", "CPU before / now"] if earlier else []
    for name in others:
        heads += [f"{name}, wall ms", "ratio"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for label, now in rows.items():
        depth, name = (len(label) - len(label.lstrip())) // 2, label.strip()
        cells = ["→ " * depth + name, f"{now['wall_ms']:.1f}", f"{now['cpu_ms']:.1f}"]
        if earlier:
            then = earlier.get(label)
            cells += ["", "", ""] if then is None else [f"{then['wall_ms']:.1f}", f"{then['cpu_ms']:.1f}"]
            cells += [] if then is None else [ratio(then["cpu_ms"], now["cpu_ms"])]
        for column in others.values():
            other = column.get(name)
            cells += ["", ""] if other is None else [f"{other:.0f}", ratio(other, now["wall_ms"])]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def ratio(other: float, ours: float) -> str:
    """How many times as long the other takes."""
    return f"{other / ours:.2f}" if ours else "-"
