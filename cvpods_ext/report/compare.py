"""The comparison table: measured and published numbers side by side, each in columns of their own.

"-" is unmeasured, "n/a" a group without ground truth; several runs show their mean and range; the best of a column is
marked among rows that were measured under the same conditions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.results import METRIC_NAMES
from cvpods_ext.report import published
from cvpods_ext.report.runs import Entry, comparable, labels
from cvpods_ext.report.table import DIGITS, NO_GROUND_TRUTH, UNMEASURED, Cell, Table, mark_best

TASKS = ("bbox", "segm")
FREQUENCY_METRICS = ("AP", "APr", "APc", "APf")
SIZE_METRICS = ("AP", "APs", "APm", "APl")


def tables(entries: Sequence[Entry], tasks: Sequence[str] = (), metrics: Sequence[str] = ()) -> list[Table]:
    """One table for every data set and task.

    `tasks` and `metrics` default to what there is: APr, APc, APf where the data set has frequency groups, else sizes.
    """
    if unknown := [name for name in metrics if name not in METRIC_NAMES]:
        raise ConfigError(f"unknown metrics {unknown}; known are {', '.join(METRIC_NAMES)}")
    result = []
    for dataset, members in groupby(sorted(entries, key=lambda entry: entry.dataset), key=lambda entry: entry.dataset):
        rows = list(members)
        for task in tasks or tasks_of(rows, dataset):
            result.append(_table(rows, dataset, task, tuple(metrics) or _metrics_of(rows, dataset, task)))
    return result


def tasks_of(entries: Sequence[Entry], dataset: str) -> list[str]:
    """Tasks that were measured or published for any of the entries; both if there are none."""
    measured = {task for entry in entries for run in entry.runs for task in run.metrics}
    reported = {
        task for entry in entries if (record := published.find(entry.experiment, dataset)) for task in record.metrics
    }
    return [task for task in TASKS if task in measured | reported] or list(TASKS)


def _metrics_of(entries: Sequence[Entry], dataset: str, task: str) -> tuple[str, ...]:
    known: set[str] = set()
    for entry in entries:
        for run in entry.runs:
            known |= {name for name, value in run.metrics.get(task, {}).items() if value is not None}
        record = published.find(entry.experiment, dataset)
        known |= set(record.metrics.get(task, {})) if record else set()
    return SIZE_METRICS if "APs" in known and not known & {"APr", "APc", "APf"} else FREQUENCY_METRICS


def _table(entries: Sequence[Entry], dataset: str, task: str, metrics: tuple[str, ...]) -> Table:
    records = [published.find(entry.experiment, dataset) for entry in entries]
    reported = [name for name in metrics if any(r and name in r.metrics.get(task, {}) for r in records)]
    several = any(len(entry.runs) > 1 for entry in entries)
    words = ("experiment", "runs") if several else ("experiment",)
    rows = []
    names = [label + mark for label, mark in zip(labels(entries), _other_limits(records), strict=True)]
    for entry, label, record in zip(entries, names, records, strict=True):
        first = [Cell(label), Cell(str(len(entry.runs)))] if several else [Cell(label)]
        measured = [measured_cell(entry, task, name) for name in metrics]
        rows.append([*first, *measured, *(published_cell(record, task, name) for name in reported)])
    start = len(words)
    eligible = comparable(entries)
    marked = iter(
        mark_best([row for row, fair in zip(rows, eligible, strict=True) if fair], range(start, start + len(metrics)))
    )
    final = [next(marked) if fair else tuple(row) for row, fair in zip(rows, eligible, strict=True)]
    return Table(
        title=f"{dataset} {task}",
        header=(*words, *metrics, *(f"published {name}" for name in reported)),
        rows=tuple(final),
        text_columns=1,
        notes=tuple(_notes(entries, records, eligible)),
    )


def _other_limits(records: Sequence[published.Published | None]) -> list[str]:
    """For each row "" or, where its source kept another number of detections than most do, that number."""
    limits = [record.confounders.get("max_detections") if record else None for record in records]
    known = Counter(limit for limit in limits if limit is not None)
    usual = known.most_common(1)[0][0] if known else None
    return ["" if limit in (None, usual) else f" (published with {limit} detections)" for limit in limits]


def measured_cell(entry: Entry, task: str, metric: str) -> Cell:
    """The metric of an entry: a number, the mean and range of several runs, "n/a", or "-"."""
    values = entry.values(task, metric)
    if values is None:
        return Cell(UNMEASURED)
    numbers = [value for value in values if value is not None]
    if not numbers:
        return Cell(NO_GROUND_TRUTH)
    mean = sum(numbers) / len(numbers)
    text = f"{mean:.{DIGITS}f}"
    if len(numbers) > 1:
        text += f" [{min(numbers):.{DIGITS}f}, {max(numbers):.{DIGITS}f}]"
    return Cell(text, mean)


def published_cell(record: published.Published | None, task: str, metric: str) -> Cell:
    """What a source reports, or "-"."""
    value = record.metrics.get(task, {}).get(metric) if record else None
    return Cell(UNMEASURED) if value is None else Cell(f"{value:.{DIGITS}f}", value)


def _notes(
    entries: Sequence[Entry], records: Sequence[published.Published | None], eligible: Sequence[bool]
) -> list[str]:
    """Sources of what is published, and every reason not to compare two numbers of the table."""
    notes = []
    if any(len(entry.runs) > 1 for entry in entries):
        notes.append("several runs: mean [lowest, highest]")
    if not all(eligible):
        notes.append("rows whose conditions are named in parentheses are not comparable with the others")
    sources: dict[str, list[str]] = {}
    for entry, record in zip(entries, records, strict=True):
        if record is None:
            continue
        sources.setdefault(record.describe(), []).append(entry.experiment)
        limit, ours = record.confounders.get("max_detections"), entry.conditions.get("max_detections")
        if limit is not None and ours is not None and limit != ours:
            notes.append(f"{entry.experiment}: measured with {ours} detections per image, published with {limit}")
    for description, names in sources.items():
        whom = "all rows" if len(names) == len(entries) > 1 else ", ".join(dict.fromkeys(names))
        notes.append(f"published, {whom}: {description}")
    return notes
