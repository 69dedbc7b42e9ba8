"""Finds results.json files and groups them: runs of one experiment that differ in the seed alone are one row."""

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
from cvpods_ext.evaluation.metric_table import MetricTable
from cvpods_ext.evaluation.results import Results
from cvpods_ext.runtime.words import counted
from cvpods_ext.tasks.task import metric_table

# Beside the conditions of the task: what a number depends on in every task.
CONDITIONS = ("images", "data_sha256", "image_sizes_sha256", "smoke")
# Config keys and settings that distinguish repetitions, not experiments.
REPETITION_KEYS = ("seed", "output")
OF_ONE_RUN = ("weights_sha256",)
# Folders, by the start of their names, whose results are no result of the experiment; whoever names one gets it.
LEFT_OUT = {
    "previous-": "of earlier runs, set aside in previous-* folders",
    "iter_": "of tests during training, in tests/iter_* folders",
}


@dataclass(frozen=True)
class Entry:
    """One row: the runs of an experiment under one set of conditions; no runs for one that was not tested yet.

    `traits` are what else distinguishes the row from others of the experiment: changed config keys, settings, sources.
    `families` are those that a test of an untested experiment would compute. `superseded` results had the seed or the
    weights of a newer one. `formerly` are other names under which results of this folder were written.
    """

    experiment: str
    dataset: str
    task: str = "detection"
    runs: tuple[Results, ...] = ()
    paths: tuple[Path, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    superseded: int = 0
    formerly: tuple[str, ...] = ()

    def values(self, family: str, metric: str) -> list[float | None] | None:
        """The metric of every run, None inside where there was no ground truth; None if no run measured it."""
        found = [run.metrics[family][metric] for run in self.runs if metric in run.metrics.get(family, {})]
        return found or None

    @property
    def seeds(self) -> list[Any]:
        """The seeds of the runs, as far as they are known."""
        return [run.provenance["seed"] for run in self.runs if "seed" in run.provenance]


@dataclass(frozen=True)
class Found:
    """The rows found in some folders, how many results were left out, by the keys of LEFT_OUT, and folders whose
    config.py cannot be loaded, with the reason.
    """

    entries: list[Entry]
    left_out: Mapping[str, int] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What a reader of a table of these rows must know about the search."""
        notes = [f"left out: {counted(n, 'result')} {LEFT_OUT[kind]}" for kind, n in self.left_out.items()]
        return notes + [f"left out: {folder}, {reason}" for folder, reason in self.unreadable.items()]


def collect(folders: Sequence[Path]) -> Found:
    """All experiments in and below `folders`, measured or not, in the order in which they are found.

    ConfigError if a folder is missing or holds neither results nor experiments.
    """
    paths, left_out = _search(folders, "results.json")
    entries = group((path, Results.read(path)) for path in paths)
    measured = {entry.experiment for entry in entries}
    unreadable: dict[str, str] = {}
    for config in _search(folders, "config.py")[0]:
        folder = config.resolve().parent  # "." has no name
        if (folder / "net.py").is_file() and folder.name not in measured:
            try:
                entries.append(unmeasured(folder))
            except ConfigError as error:  # one that cannot be loaded hides no others
                unreadable[folder.name] = str(error).split("\n")[0]
    if not entries and unreadable:
        raise ConfigError("\n".join(f"{folder}: {reason}" for folder, reason in unreadable.items()))
    if not entries:
        listed = ", ".join(map(str, folders))
        raise ConfigError(
            f"no results.json and no experiment folder in {listed}. Run pods_test in an experiment folder."
        )
    return Found(entries, left_out, unreadable)


def group(found: Iterable[tuple[Path, Results]]) -> list[Entry]:
    """Pool runs that differ in nothing but the seed; of several with one seed or the same weights the newest counts."""
    pools: dict[str, tuple[str, list[tuple[Path, Results]]]] = {}
    for path, results in found:
        name = name_of(path, results)
        identity = [name, results.dataset, results.task, conditions_of(results), _traits(results)]
        members = pools.setdefault(json.dumps(identity, sort_keys=True, default=str), (name, []))[1]
        members.append((path, results))
    return [_pooled(name, members) for name, members in pools.values()]


def name_of(path: Path, results: Results) -> str:
    """The name of the experiment folder that the results lie in, which may have been copied or renamed since.

    Detections of another program keep the name of their file, and results outside of such folders the one they have.
    """
    if not results.is_imported:
        for folder in path.resolve().parents:
            if (folder / "config.py").is_file() and (folder / "net.py").is_file():
                return folder.name
    return results.experiment


def _pooled(name: str, members: Sequence[tuple[Path, Results]]) -> Entry:
    paths, runs = zip(*_newest(members), strict=True)
    first: Results = runs[0]
    return Entry(
        experiment=name,
        dataset=first.dataset,
        task=first.task,
        runs=runs,
        paths=paths,
        conditions=conditions_of(first),
        traits=_traits(first),
        superseded=len(members) - len(runs),
        formerly=tuple(dict.fromkeys(run.experiment for run in runs if run.experiment != name)),
    )


def _newest(members: Sequence[tuple[Path, Results]]) -> list[tuple[Path, Results]]:
    """The members, in their order, without those that have the seed or the weights of a newer one."""
    kept: list[int] = []
    known: set[str] = set()
    for i in sorted(range(len(members)), key=lambda i: (_date(members[i][1]), i), reverse=True):
        results = members[i][1]
        marks = {results.content} - {""}
        if "seed" in results.provenance:
            marks.add(f"seed {results.provenance['seed']}")
        if not marks & known:
            kept.append(i)
            known |= marks
    return [members[i] for i in sorted(kept)]


def _date(results: Results) -> str:
    return str(results.provenance.get("date", ""))


def results_of(folder: Path) -> list[Path]:
    """The results that an experiment's folder keeps, those of pods_test first.

    pods_test writes results.json beside config.py for the experiment as published; runs worth keeping beside it, such
    as those of other seeds, lie in results/<run>/results.json.
    """
    kept = sorted(folder.glob("results/*/results.json"))
    return [path for path in (folder / "results.json", *kept) if path.is_file()]


def measured_or_not(folder: Path) -> list[Entry]:
    """The rows of one experiment folder: of the results that it keeps, or one without numbers."""
    return group((path, Results.read(path)) for path in results_of(folder)) or [unmeasured(folder)]


def unmeasured(folder: Path) -> Entry:
    """The row of an experiment that was not tested yet."""
    config = load_experiment(folder).config
    test = config.data.test
    dataset = Path(test.annotations).stem if isinstance(test, DatasetFiles) else test
    return Entry(folder.resolve().name, dataset, config.task, families=tuple(config.test.metrics))


def table_of(entries: Sequence[Entry]) -> MetricTable:
    """The metric table of the entries' task, with what their results hold beyond it.

    Results may come from a newer version, or of a task whose module is not there: then the numbers are all that is
    known.
    """
    try:
        table = metric_table(entries[0].task, only_known=True)
    except ConfigError:
        table = MetricTable()
    return table.extended(run.metrics for entry in entries for run in entry.runs)


def conditions_of(results: Results) -> dict[str, Any]:
    """What the numbers hold under."""
    merged = {**results.provenance, **results.settings}
    names = (*_rules(results.task).conditions, *CONDITIONS)
    return {key: merged[key] for key in names if merged.get(key) is not None}


def _rules(task: str) -> MetricTable:
    try:
        return metric_table(task, only_known=True)
    except ConfigError:
        return MetricTable()


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
            others = [other.traits for other in entries if other.experiment == entry.experiment and other is not entry]
            details += [
                f"{key}={_short(value)}"
                for key, value in entry.traits.items()
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


def _traits(results: Results) -> dict[str, Any]:
    """What makes another network, training or test, beside the conditions: results are pooled only if all agree.

    Changed settings (their new values) with seeds in paths made alike, settings of the test, detections of another
    program, the experiment folder's sources and our version; the last two are absent in results of early versions.
    """
    traits: dict[str, Any] = {}
    for key, pair in results.changes.items():
        if key not in REPETITION_KEYS:
            value = pair[1] if isinstance(pair, list) and len(pair) == 2 else pair
            traits[key] = re.sub(r"seed[=_-]?\d+", "seed*", value) if isinstance(value, str) else value
    changed = {key.rpartition(".")[2] for key in traits}
    rules = _rules(results.task)
    known = {*rules.conditions, *CONDITIONS, *rules.observations, *OF_ONE_RUN, *changed}
    traits |= {key: value for key, value in results.settings.items() if key not in known}
    versions = results.provenance.get("versions")
    found = {
        "detections": results.content if results.is_imported else None,
        "sources": results.provenance.get("sources_sha256"),
        "version": versions.get("cvpods_ext") if isinstance(versions, dict) else None,
    }
    return traits | {key: value for key, value in found.items() if value is not None}


def _search(folders: Sequence[Path], name: str) -> tuple[list[Path], dict[str, int]]:
    """Files called `name`, each once, and how many lie in folders of LEFT_OUT, by its keys.

    A path that already is such a file counts as found; hidden folders do not.
    """
    found: dict[Path, Path] = {}
    left_out: dict[Path, str] = {}
    for folder in map(Path, folders):
        if folder.is_file():
            candidates = [folder] if folder.name == name else []
        elif folder.is_dir():
            candidates = sorted(folder.rglob(name))
        else:
            raise ConfigError(f"{folder} is neither a folder nor a results.json.")
        for path in candidates:
            parents = path.relative_to(folder).parts[:-1]
            if kinds := [kind for kind in LEFT_OUT if any(part.startswith(kind) for part in parents)]:
                left_out[path.resolve()] = kinds[0]
            elif not any(part.startswith(".") for part in parents):
                found.setdefault(path.resolve(), path)
    return list(found.values()), dict(Counter(left_out.values()))
