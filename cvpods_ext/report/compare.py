"""The comparison table: measured and published numbers side by side, each in columns of their own.

"-" is unmeasured, "n/a" a group without ground truth; several runs show their mean and range; the best of a column is
marked among rows that were measured under the same conditions, if the range of its runs lies beyond all others. What is
a metric, and which of two values is better, the metric table of the task says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable, nearest
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report import published
from cvpods_ext.report.published import Published
from cvpods_ext.report.runs import Entry, comparable, labels, table_of
from cvpods_ext.report.table import NO_GROUND_TRUTH, UNMEASURED, Cell, Table, mark_best
from cvpods_ext.runtime.words import counted, printable


def tables(
    entries: Sequence[Entry], families: Sequence[str] = (), metrics: Sequence[str] = (), notes: Sequence[str] = ()
) -> list[Table]:
    """One table for every data set and family of metrics; `notes` stand under each.

    `families` and `metrics` default to what there is, see `Family.default_columns`. ConfigError for a name that neither
    the task's metric table nor any of the results has.
    """
    by_data = sorted(entries, key=lambda entry: (entry.dataset, entry.task))
    groups = [Rows.of(list(members)) for _, members in groupby(by_data, key=lambda entry: (entry.dataset, entry.task))]
    _require_known("metric family", families, [name for rows in groups for name in rows.table.names])
    known = [name for rows in groups for family in rows.table.families for name in family.names]
    _require_known("metric", metrics, known)
    result = []
    for rows in groups:
        for name in families or rows.families():
            if name in rows.table.names:
                family = rows.table.family(name)
                columns = [one for one in metrics if one in family.names] if metrics else rows.columns(family)
                if columns:
                    result.append(_table(rows, family, [family.metric(column) for column in columns], notes))
    return result


def _require_known(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown {kind} {name!r}: {nearest(name, list(dict.fromkeys(known)))}")


@dataclass(frozen=True)
class Rows:
    """Experiments of one data set and task, with what was published for each, and the metric table of the task."""

    entries: Sequence[Entry]
    records: Sequence[Published | None]
    table: MetricTable

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Rows:
        """The rows of `entries`, which share data set and task."""
        records = [published.find(entry.experiment, entry.dataset) for entry in entries]
        table = table_of(entries).extended(record.metrics for record in records if record)
        return cls(entries, records, table)

    def families(self) -> list[str]:
        """Families that were measured or published for any row, else those that a test would compute."""
        known = {name for entry in self.entries for run in entry.runs for name in run.metrics}
        known |= {name for record in self.records if record for name in record.metrics}
        wanted = known or {name for entry in self.entries for name in entry.families} or set(self.table.default)
        return [name for name in self.table.names if name in wanted]

    def values(self, family: Family) -> Iterator[tuple[str, float | None]]:
        """Name and value of every metric of a family in any row, measured or published."""
        sources = [run for entry in self.entries for run in entry.runs] + [one for one in self.records if one]
        return (pair for source in sources for pair in source.metrics.get(family.name, {}).items())

    def columns(self, family: Family) -> tuple[str, ...]:
        """The metrics of a family to show if nobody chose."""
        return family.default_columns({name for name, value in self.values(family) if value is not None})


def _table(rows: Rows, family: Family, metrics: Sequence[Metric], notes: Sequence[str]) -> Table:
    entries, records = rows.entries, rows.records
    published_names = {name for one in records if one for name in one.metrics.get(family.name, {})}
    reported = [metric for metric in metrics if metric.name in published_names]
    several = any(len(entry.runs) > 1 for entry in entries)
    names = [label + mark for label, mark in zip(labels(entries), _other_conditions(rows), strict=True)]
    cells = []
    for entry, label, record in zip(entries, names, records, strict=True):
        first = [Cell(label), Cell(runs_and_seeds(entry))] if several else [Cell(label)]
        measured = [measured_cell(entry, family.name, metric) for metric in metrics]
        cells.append([*first, *measured, *(published_cell(record, family.name, metric) for metric in reported)])
    words = ("experiment", "runs (seeds)") if several else ("experiment",)
    eligible = comparable(entries)
    positions = dict(enumerate(metrics, start=len(words)))
    marked = iter(mark_best([row for row, fair in zip(cells, eligible, strict=True) if fair], positions))
    return Table(
        title=f"{entries[0].dataset} {family.name}",
        header=(*words, *(metric.heading for metric in metrics), *(f"published {one.heading}" for one in reported)),
        rows=tuple(next(marked) if fair else tuple(row) for row, fair in zip(cells, eligible, strict=True)),
        text_columns=1,
        notes=(*_notes(rows, eligible), *([family.note] if family.note else []), *remarks(rows), *notes),
    )


def runs_and_seeds(entry: Entry) -> str:
    """How many runs, and their seeds in brief: "3 (0-2)"."""
    if not entry.runs:
        return UNMEASURED
    seeds = entry.seeds
    if len(seeds) < len(entry.runs):
        return str(len(entry.runs))
    whole = sorted(seeds) if all(isinstance(seed, int) for seed in seeds) else []
    if len(whole) > 2 and whole[-1] - whole[0] == len(whole) - 1:
        return f"{len(seeds)} ({whole[0]}-{whole[-1]})"
    return f"{len(seeds)} ({', '.join(map(str, whole or seeds))})"


def _other_conditions(rows: Rows) -> list[str]:
    """For each row "" or, where its source measured under another condition than most did, that condition."""
    marks = [""] * len(rows.records)
    for key in rows.table.conditions:
        values = [record.confounders.get(key) if record else None for record in rows.records]
        known = Counter(str(value) for value in values if value is not None)
        usual = known.most_common(1)[0][0] if known else None
        for k, value in enumerate(values):
            if value is not None and str(value) != usual:
                marks[k] += f" (published with {_words(key)} {value})"
    return marks


def measured_cell(entry: Entry, family: str, metric: Metric) -> Cell:
    """The metric of an entry: a number, the mean and range of several runs, "n/a", or "-"."""
    values = entry.values(family, metric.name)
    if values is None:
        return Cell(UNMEASURED)
    numbers = [value for value in values if value is not None]
    if not numbers:
        return Cell(NO_GROUND_TRUTH)
    mean = sum(numbers) / len(numbers)
    text = metric.format(mean)
    if len(numbers) == 1:
        return Cell(text, mean)
    text += f" [{metric.format(min(numbers))}, {metric.format(max(numbers))}]"
    return Cell(text, mean, low=min(numbers), high=max(numbers))


def published_cell(record: Published | None, family: str, metric: Metric) -> Cell:
    """What a source reports, or "-"."""
    value = record.metrics.get(family, {}).get(metric.name) if record else None
    return Cell(UNMEASURED) if value is None else Cell(metric.format(value), value)


def remarks(rows: Rows) -> list[str]:
    """What the task remarks on the settings of the measured rows, each once, and on whom where they differ."""
    found: dict[str, dict[str, None]] = {}
    for entry in rows.entries:
        for run in entry.runs:
            found.setdefault(printable(rows.table.remark(run.settings)), {})[entry.experiment] = None
    texts = [text for text in found if text]
    return texts if len(found) == 1 else [f"{text} ({', '.join(found[text])})" for text in texts]


def _notes(rows: Rows, eligible: Sequence[bool]) -> list[str]:
    """Sources of what is published, and every reason not to compare two numbers of the table."""
    notes = _same_weights(rows.entries)
    if any(len(entry.runs) > 1 for entry in rows.entries):
        notes.append("several runs: mean [lowest, highest]; bold where that range lies beyond all others")
    for entry in rows.entries:
        if entry.superseded:
            same = "detections" if entry.runs[0].is_imported else "seed or weights"
            results = counted(entry.superseded, "older result")
            notes.append(f"{entry.experiment}: {results} of the same {same} left out, the newest counts")
        if entry.formerly:
            notes.append(f"{entry.experiment}: made when its folder was called {', '.join(entry.formerly)}")
    if not all(eligible):
        notes.append("rows whose conditions are named in parentheses are not comparable with the others")
    sources: dict[str, list[str]] = {}
    for entry, record in zip(rows.entries, rows.records, strict=True):
        if record:
            sources.setdefault(record.describe(), []).append(entry.experiment)
            notes += _differing(entry, record.confounders, rows.table.conditions)
    for description, names in sources.items():
        whom = "all rows" if len(names) == len(rows.entries) > 1 else ", ".join(dict.fromkeys(names))
        notes.append(f"published, {whom}: {description}")
    return notes


def _same_weights(entries: Sequence[Entry]) -> list[str]:
    """A note for rows of the same weights or detections: one run, as in a copied folder, or another test of them."""
    rows: dict[str, dict[str, list[Results]]] = {}
    for entry in entries:
        for run in entry.runs:
            if run.content:
                rows.setdefault(run.content, {}).setdefault(entry.experiment, []).append(run)
    notes: dict[str, None] = {}
    for runs in rows.values():
        if len(runs) > 1:
            numbers = [run.metrics for members in runs.values() for run in members]
            alike = all(one == numbers[0] for one in numbers)
            what = "one run, whose weights or detections are the same" if alike else "one training, tested differently"
            notes[f"{', '.join(runs)}: {what}"] = None
    return list(notes)


def _differing(entry: Entry, confounders: Mapping[str, object], conditions: Sequence[str]) -> list[str]:
    """A note for each condition in which a measured row differs from what was published for it."""
    pairs = ((key, entry.conditions.get(key), confounders.get(key)) for key in conditions)
    return [
        f"{entry.experiment}: measured with {_words(key)} {ours}, published with {theirs}"
        for key, ours, theirs in pairs
        if None not in (ours, theirs) and ours != theirs
    ]


def _words(key: str) -> str:
    return key.replace("_", " ")
