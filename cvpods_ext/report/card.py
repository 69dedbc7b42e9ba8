"""The block of numbers in an experiment's README, rendered from its results.json and its config.

People write the prose around the block; nothing inside it is typed, and `check` finds out when somebody did.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvpods_ext.config import changes, published_weights
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.metric_table import Family
from cvpods_ext.report.compare import Rows, measured_cell, published_cell
from cvpods_ext.report.runs import Entry, labels, measured_or_not
from cvpods_ext.report.table import Cell, Table, to_markdown
from cvpods_ext.runtime.files import write_text

BEGIN = "<!-- results:begin (pods_report) -->"
BEGIN_PREFIX = "<!-- results:begin"
END = "<!-- results:end -->"
_UNSEEN = ("data_sha256", "image_sizes_sha256", "smoke")  # conditions that a reader of a card cannot use


def render(folder: Path) -> str:
    """The block of the experiment in `folder`, markers included."""
    entries = measured_or_not(folder)
    experiment = load_experiment(folder)
    parts = [BEGIN, _changes_table(experiment), *map(to_markdown, _metric_tables(entries))]
    if rules := experiment.config.protocol():
        parts.append(f"Protocol of {rules}.\n")
    if weights := published_weights.load().get(experiment.name):
        parts.append(f"Published weights: `{weights.address}`; `--published` takes them.\n")
    parts += [_provenance(entry) for entry in entries if entry.runs]
    if not any(entry.runs for entry in entries):
        parts.append("Not measured yet: `pods_train`, then `pods_test`.\n")
    return "\n".join([*parts, END])


def update(folder: Path) -> bool:
    """Write the block into the folder's README.md, made if absent; returns whether the file changed."""
    readme = folder / "README.md"
    old = readme.read_text(encoding="utf-8") if readme.exists() else f"# {folder.resolve().name}\n"
    new = _with_block(old, render(folder), readme)
    if new != old or not readme.exists():
        write_text(readme, new)
        return True
    return False


def check(folder: Path) -> list[str]:
    """Lines in which README.md and what `render` gives differ, as a diff; [] if they agree."""
    readme = folder / "README.md"
    if not readme.exists():
        return [f"{readme} is missing; run pods_report {folder}"]
    text = readme.read_text(encoding="utf-8")
    expected = _with_block(text, render(folder), readme)
    names = (str(readme), f"{readme} rendered")
    return list(difflib.unified_diff(text.splitlines(), expected.splitlines(), *names, lineterm="", n=1))


def experiments(folders: Sequence[Path]) -> list[Path]:
    """Experiment folders in and below `folders`; ConfigError if there are none."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder.")
        found += [path.parent for path in sorted(folder.rglob("config.py")) if (path.parent / "net.py").is_file()]
    if not found:
        raise ConfigError(f"no experiment (config.py and net.py) in {', '.join(map(str, folders))}.")
    return list(dict.fromkeys(found))


def _metric_tables(entries: Sequence[Entry]) -> list[Table]:
    """Measured and published numbers in columns of their own; families with the same metrics share a table."""
    rows = Rows.of(entries)
    shared: dict[tuple[str, ...], list[Family]] = {}
    for name in rows.families():
        family = rows.table.family(name)
        shared.setdefault(family.names, []).append(family)
    return [_metric_table(rows, families) for families in shared.values()]


def _metric_table(rows: Rows, families: Sequence[Family]) -> Table:
    record = rows.records[0]
    reported = {name for family in families for name, _ in rows.values(family)}
    names = [name for name in families[0].names if name in reported] or families[0].columns[0]
    header, columns = ["metric"], [[Cell(families[0].metric(name).heading) for name in names]]
    for family in families:
        metrics = [family.metric(name) for name in names]
        for entry, label in zip(rows.entries, labels(rows.entries), strict=True):
            header.append(family.name + (f", {label}" if len(rows.entries) > 1 else "") + _runs(entry))
            columns.append([measured_cell(entry, family.name, metric) for metric in metrics])
        if record and family.name in record.metrics:
            header.append(f"{family.name} published")
            columns.append([published_cell(record, family.name, metric) for metric in metrics])
    notes = [f"published: {record.describe()}"] if record else []
    notes += [family.note for family in families if family.note]
    return Table(rows.entries[0].dataset, tuple(header), tuple(zip(*columns, strict=True)), notes=tuple(notes))


def _runs(entry: Entry) -> str:
    return f", {len(entry.runs)} runs" if len(entry.runs) > 1 else ""


def _changes_table(experiment: Experiment) -> str:
    config = experiment.config
    changed: Mapping[str, tuple[Any, Any]] = changes(config, config.base) if config.base else {}
    if not changed:
        return "The base configuration, unchanged.\n"
    rows = tuple((Cell(key), Cell(_value(old)), Cell(_value(new))) for key, (old, new) in changed.items())
    return to_markdown(Table("", ("changed setting", "base", "here"), rows, text_columns=3))


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)) and not value:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _provenance(entry: Entry) -> str:
    """One line: what made the numbers, as far as all runs of the row have it in common."""
    made = [run.provenance for run in entry.runs]

    def common(key: str) -> Any:
        values = {str(one.get(key)): one.get(key) for one in made}
        return next(iter(values.values())) if len(values) == 1 else None

    seeds = ", ".join(map(str, sorted(entry.seeds, key=str)))
    settings = entry.runs[0].settings
    facts = [
        common("devices"),
        f"seed{'s' * (len(entry.seeds) > 1)} {seeds}" if entry.seeds else None,
        f"iteration {common('iteration')}" if common("iteration") is not None else None,
        f"commit `{common('commit')}`" if common("commit") else None,
        f"weights sha256 `{str(common('weights_sha256'))[:12]}`" if common("weights_sha256") else None,
        f"evaluator {settings['evaluator']}" if "evaluator" in settings else None,
        *(f"{key.replace('_', ' ')} {value}" for key, value in entry.conditions.items() if key not in _UNSEEN),
        max((str(one["date"])[:10] for one in made if one.get("date")), default=None),
    ]
    return "Measured: " + ", ".join(str(fact) for fact in facts if fact) + ".\n"


def _with_block(text: str, block: str, readme: Path) -> str:
    """`text` with its block replaced, or appended where there is none."""
    begin, end = text.find(BEGIN_PREFIX), text.find(END)
    if begin < 0 and end < 0:
        return text.rstrip("\n") + "\n\n" + block + "\n"
    if begin < 0 or end < begin or text.count(BEGIN_PREFIX) > 1 or text.count(END) > 1:
        raise ConfigError(f"{readme}: the markers {BEGIN!r} and {END!r} must stand there once each, in this order.")
    return text[:begin] + block + text[end + len(END) :]
