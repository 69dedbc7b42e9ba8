"""Finds results.json files and groups them: repeated runs of one experiment under the same conditions are one row."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.results import Results

# Settings and provenance that a number depends on beside the model: rows that differ in one are not comparable.
CONDITIONS = ("protocol", "max_detections", "images", "data_sha256", "smoke")
# Config keys that distinguish repetitions, not experiments.
REPETITION_KEYS = ("seed", "output")


@dataclass(frozen=True)
class Entry:
    """One row: the runs of an experiment under one set of conditions; no runs for one that was not tested yet."""

    experiment: str
    dataset: str
    runs: tuple[Results, ...] = ()
    paths: tuple[Path, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    def values(self, task: str, metric: str) -> list[float | None] | None:
        """The metric of every run, None inside where there was no ground truth; None if no run measured it."""
        found = [run.metrics[task][metric] for run in self.runs if metric in run.metrics.get(task, {})]
        return found or None


def collect(folders: Sequence[Path]) -> list[Entry]:
    """All experiments in and below `folders`, measured or not, in the order in which they are found.

    ConfigError if a folder is missing or holds neither results nor experiments.
    """
    entries = group(_read(_search(folders, "results.json")))
    measured = {entry.experiment for entry in entries}
    for config in _search(folders, "config.py"):
        if (config.parent / "net.py").is_file() and config.parent.name not in measured:
            entries.append(unmeasured(config.parent))
    if not entries:
        listed = ", ".join(map(str, folders))
        raise ConfigError(
            f"no results.json and no experiment folder in {listed}. Run pods_test in an experiment folder."
        )
    return entries


def group(found: Iterable[tuple[Path, Results]]) -> list[Entry]:
    """Pool runs that differ in nothing but the seed; the same weights tested twice count once, the later file wins."""
    pools: dict[str, list[tuple[Path, Results]]] = {}
    for path, results in found:
        pools.setdefault(_identity(results), []).append((path, results))
    entries = []
    for members in pools.values():
        distinct = {str(r.provenance.get("weights_sha256", path)): (path, r) for path, r in members}
        paths, runs = zip(*distinct.values(), strict=True)
        first: Results = runs[0]
        entries.append(
            Entry(first.experiment, first.dataset, runs, paths, conditions_of(first), _lasting_changes(first.changes))
        )
    return entries


def unmeasured(folder: Path) -> Entry:
    """The row of an experiment that was not tested yet."""
    test = load_experiment(folder).config.data.test
    dataset = Path(test.annotations).stem if isinstance(test, DatasetFiles) else test
    return Entry(folder.resolve().name, dataset)


def conditions_of(results: Results) -> dict[str, Any]:
    """What the numbers hold under."""
    merged = {**results.provenance, **results.settings}
    return {key: merged[key] for key in CONDITIONS if merged.get(key) is not None}


def labels(entries: Sequence[Entry]) -> list[str]:
    """A name for every row of one table: the experiment, and where two share it what distinguishes them."""
    shared = Counter(entry.experiment for entry in entries)
    usual = _usual_conditions(entries)
    names = []
    for entry in entries:
        details = ["smoke"] if entry.conditions.get("smoke") else []  # also where all rows are: it is no result
        unusual = deviations(entry, usual).items()
        details += [f"{key.split('.')[-1]}={_short(value)}" for key, value in unusual if key != "smoke" or not value]
        if shared[entry.experiment] > 1:
            others = [other.changes for other in entries if other.experiment == entry.experiment and other is not entry]
            details += [
                f"{key}={_short(value)}"
                for key, value in entry.changes.items()
                if any(other.get(key) != value for other in others)
            ]
        names.append(f"{entry.experiment} ({', '.join(details)})" if details else entry.experiment)
    repeated = Counter(names)
    return [
        f"{name} in {entry.paths[0].parent}" if repeated[name] > 1 and entry.paths else name
        for name, entry in zip(names, entries, strict=True)
    ]


def comparable(entries: Sequence[Entry]) -> list[bool]:
    """Which rows hold under the conditions of most rows."""
    usual = _usual_conditions(entries)
    return [not deviations(entry, usual) for entry in entries]


def deviations(entry: Entry, usual: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions of a row that are not the usual ones of its table."""
    return {key: value for key, value in entry.conditions.items() if value != usual.get(key)} if entry.runs else {}


def _usual_conditions(entries: Sequence[Entry]) -> dict[str, Any]:
    measured = [entry.conditions for entry in entries if entry.runs]
    if not measured:
        return {}
    tally = Counter(json.dumps(conditions, sort_keys=True, default=str) for conditions in measured)
    usual = tally.most_common(1)[0][0]
    return next(dict(c) for c in measured if json.dumps(c, sort_keys=True, default=str) == usual)


def _short(value: Any) -> str:
    text = str(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{40,64}", text) else text


def _lasting_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changed settings (their new values) that make another experiment, seeds in paths made alike."""
    lasting = {}
    for key, pair in changes.items():
        if key not in REPETITION_KEYS:
            value = pair[1] if isinstance(pair, list) and len(pair) == 2 else pair
            lasting[key] = re.sub(r"seed[=_-]?\d+", "seed*", value) if isinstance(value, str) else value
    return lasting


def _identity(results: Results) -> str:
    parts = [results.experiment, results.dataset, conditions_of(results), _lasting_changes(results.changes)]
    return json.dumps(parts, sort_keys=True, default=str)


def _search(folders: Sequence[Path], name: str) -> list[Path]:
    """Files called `name`, each once; a path that already is such a file counts as found; hidden folders do not."""
    found: dict[Path, Path] = {}
    for folder in map(Path, folders):
        if folder.is_file():
            candidates = [folder] if folder.name == name else []
        elif folder.is_dir():
            candidates = sorted(folder.rglob(name))
        else:
            raise ConfigError(f"{folder} is neither a folder nor a results.json.")
        for path in candidates:
            if not any(part.startswith(".") for part in path.relative_to(folder).parts[:-1]):
                found.setdefault(path.resolve(), path)
    return list(found.values())


def _read(paths: Iterable[Path]) -> Iterable[tuple[Path, Results]]:
    return ((path, Results.read(path)) for path in paths)
