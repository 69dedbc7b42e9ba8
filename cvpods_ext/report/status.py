"""What is known of runs from the files that they write: progress, last losses, time left. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import read_json
from cvpods_ext.runtime.records import METRICS, is_finite, last_record

_NO_RUNS = ("previous-", "failed-start", ".replaced")  # folders in which a later run keeps an earlier one
_LONGEST_STEP = 1e6  # seconds; more is no measurement
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
        if not any(part.startswith(_NO_RUNS) for part in path.parts) and (run := read_run(path.parent)):
            yield run


def read_run(folder: Path, now: float | None = None) -> RunStatus | None:
    """The run that writes into `folder`; None if its config.json is not that of a run."""
    now = time.time() if now is None else now
    try:
        content = read_json(folder / "config.json")
        experiment = str(content["experiment"])
        total, every = (_positive(content["config"][key]) for key in ("schedule.iters", "log_every"))
    except (DataError, KeyError, TypeError, ValueError):
        return None
    metrics = folder / METRICS
    record = last_record(metrics, numbers=("time",), most=total)  # others are those of tests
    record = {name: value for name, value in record.items() if is_finite(value)}
    newest = max(path.stat().st_mtime for path in (metrics, folder / "config.json") if path.exists())
    iteration = record.get("iteration", 0)
    seconds = min(max(record.get("time", 0.0), 0.0), _LONGEST_STEP)
    quiet = now - newest > max(_QUIET, 5 * every * seconds)
    if (folder / "model_final.pth").is_file() and iteration >= total:
        state = "finished"
    elif quiet:
        state = "stopped"
    else:
        state = "running" if record else "starting"
    return RunStatus(
        folder=folder,
        experiment=experiment,
        state=state,
        iteration=iteration,
        total=total,
        eta=seconds * max(total - iteration, 0) if record and state != "finished" else None,
        age=now - newest,
        record=record,
    )


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 53:
        raise ValueError(f"{value!r} is no number of iterations")
    return value
