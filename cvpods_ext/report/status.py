"""What is known of runs from the files that they write: progress, last losses, time left. Imports no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

_TAIL_BYTES = 1 << 16
_QUIET = 300.0  # seconds without a record after which a run counts as stopped, at least


@dataclass(frozen=True)
class RunStatus:
    """One output folder. `eta` is in seconds, None if nothing is left or known; `record` is the last one written."""

    folder: Path
    experiment: str
    state: Literal["running", "stopped", "finished", "starting"]
    iteration: int
    total: int
    eta: float | None
    age: float
    record: dict[str, Any] = field(default_factory=dict)


def find_runs(root: Path) -> Iterator[RunStatus]:
    """Runs below `root`, in the order of their folders; earlier runs that were set aside are left out."""
    for path in sorted(root.rglob("config.json")):
        if not any(part.startswith("previous-") for part in path.parts) and (run := read_run(path.parent)):
            yield run


def read_run(folder: Path, now: float | None = None) -> RunStatus | None:
    """The run that writes into `folder`; None if its config.json is not that of a run."""
    now = time.time() if now is None else now
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        total, every = content["config"]["schedule.iters"], content["config"]["log_every"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    metrics = folder / "metrics.jsonl"
    record = last_record(metrics)
    newest = max(path.stat().st_mtime for path in (metrics, folder / "config.json") if path.exists())
    iteration = record.get("iteration", 0)
    seconds = record.get("time", 0.0)
    quiet = now - newest > max(_QUIET, 5 * every * seconds)
    if (folder / "model_final.pth").is_file() and iteration >= total:
        state = "finished"
    elif quiet:
        state = "stopped"
    else:
        state = "running" if record else "starting"
    return RunStatus(
        folder=folder,
        experiment=content["experiment"],
        state=state,
        iteration=iteration,
        total=total,
        eta=seconds * (total - iteration) if record and state != "finished" else None,
        age=now - newest,
        record=record,
    )


def last_record(metrics: Path) -> dict[str, Any]:
    """The last whole record of a step in a metrics.jsonl, {} if there is none; reads only the end of the file."""
    if not metrics.is_file():
        return {}
    with open(metrics, "rb") as file:
        file.seek(max(0, metrics.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if "time" in record:  # others are those of tests
            return record
    return {}
