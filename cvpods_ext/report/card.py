"""The block of numbers in an experiment's README, rendered from its results.json and its config.

People write the prose around the block; nothing inside it is typed, and `check` finds out when somebody did.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvpods_ext.config import changes
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report import published
from cvpods_ext.report.compare import measured_cell, published_cell, tasks_of
from cvpods_ext.report.runs import Entry, group, unmeasured
from cvpods_ext.report.table import Cell, Table, to_markdown
from cvpods_ext.runtime.files import write_text

BEGIN = "<!-- results:begin (pods_report) -->"
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
BEGIN_PREFIX = "<!-- results:begin"
END = "<!-- results:end -->"


def render(folder: Path) -> str:
    """The block of the experiment in `folder`, markers included."""
    experiment = load_experiment(folder)
    results = _results_of(folder)
    parts = [BEGIN, _changes_table(experiment)]
    parts.append(to_markdown(_metrics_table(group([(folder, results)])[0] if results else unmeasured(folder))))
    parts.append(_provenance(results) if results else "Not measured yet: `pods_train`, then `pods_test`.\n")
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


def _results_of(folder: Path) -> Results | None:
    path = folder / "results.json"
    return Results.read(path) if path.exists() else None


def _metrics_table(entry: Entry) -> Table:
    """Measured and published numbers of every task, in rows of their own."""
    record = published.find(entry.experiment, entry.dataset)
    rows = []
    for task in tasks_of([entry], entry.dataset):
        rows.append((Cell(task), Cell("measured"), *(measured_cell(entry, task, name) for name in METRICS)))
        if record and task in record.metrics:
            numbers = (published_cell(record, task, name) for name in METRICS)
            rows.append((Cell(task), Cell("published"), *numbers))
    notes = (f"published: {record.describe()}",) if record else ()
    return Table(entry.dataset, ("task", "", *METRICS), tuple(rows), text_columns=2, notes=notes)


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


def _provenance(results: Results) -> str:
    """One line: what made the numbers."""
    made = results.provenance
    facts = [
        made.get("devices"),
        f"seed {made['seed']}" if "seed" in made else None,
        f"iteration {made['iteration']}" if made.get("iteration") is not None else None,
        f"commit `{made['commit']}`" if made.get("commit") else None,
        f"weights sha256 `{str(made['weights_sha256'])[:12]}`" if made.get("weights_sha256") else None,
        f"evaluator {results.settings['evaluator']}" if "evaluator" in results.settings else None,
        f"{results.settings['images']} images" if "images" in results.settings else None,
        f"at most {results.settings['max_detections']} detections" if "max_detections" in results.settings else None,
        str(made["date"])[:10] if made.get("date") else None,
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
