"""What a task adds to tables of metrics: how sure its numbers are, and what an HTML page shows of its predictions.

A task has one object for this, the constant `REPORT` of the subpackage `report.<task>`; nothing else in pods_compare
asks which task it is. A task without one has tables and no more. Imports neither torch nor what the tasks need.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cvpods_ext.report
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.errors import ConfigError
from cvpods_ext.report.runs import Entry, table_of
from cvpods_ext.report.table import Table

if TYPE_CHECKING:
    from argparse import _ArgumentGroup


@dataclass(frozen=True)
class Request:
    """Measured experiments of one data set, and what was asked about them.

    `experiment` is that of the first row, which says where the data lie; `family` the family of metrics; `reference`
    a label to compare with, "" for the first; `options` the values of the task's own flags that were given.
    """

    entries: Sequence[Entry]
    experiment: Experiment
    family: str
    reference: str = ""
    resamples: int = 1000
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Data set and family."""
        return f"{self.entries[0].dataset} {self.family}"


@dataclass(frozen=True)
class PagePart:
    """What stands below the tables of a page: HTML, and JSON data with the script that reads it.

    The script finds the data in the element called `data`. Text from outside must be escaped in `body`, not in `data`.
    """

    body: str = ""
    data: Any = None
    script: str = ""


class Details(ABC):
    """Predictions of the requested experiments, opened for a closer look."""

    @abstractmethod
    def intervals(self) -> list[Table]:
        """Tables that say how sure the numbers are and which differences are more than chance."""

    @abstractmethod
    def page(self) -> PagePart:
        """Curves, examples of errors, pictures: whatever helps to understand the numbers."""


class TaskReport(ABC):
    """The report of a task. Creating it imports nothing heavy, since `pods_compare --help` does."""

    def add_flags(self, flags: _ArgumentGroup) -> Sequence[str]:
        """Add flags of the task to pods_compare, absent ones None; returns their names in the parsed arguments.

        Giving one asks for intervals.
        """
        return ()

    @abstractmethod
    def open(self, request: Request) -> Details:
        """Load what intervals and page need. Raises ConfigError or DataError for what cannot be shown."""


def known_reports() -> dict[str, TaskReport]:
    """The reports of this package's tasks by the task's name."""
    names = [module.name for module in pkgutil.iter_modules(cvpods_ext.report.__path__) if module.ispkg]
    return {name: find(name) for name in names}


def find(task: str) -> TaskReport:
    """The report of a task: `REPORT` of the subpackage of its name, or of the module, once imported, if it has a dot.

    Raises ConfigError if there is none.
    """
    if "." in task:
        module = sys.modules.get(task)
    elif task.isidentifier() and importlib.util.find_spec(f"{cvpods_ext.report.__name__}.{task}"):
        module = importlib.import_module(f"{cvpods_ext.report.__name__}.{task}")
    else:
        module = None
    report = getattr(module, "REPORT", None)
    if not isinstance(report, TaskReport):
        raise ConfigError(f"the task {task!r} has neither intervals nor a page; drop --intervals and --html")
    return report


def request_for(entries: Sequence[Entry], family: str, **asked: Any) -> Request:
    """The request about the measured ones of `entries`, which must share data set and task; `asked` as in `Request`.

    Without a `family` it is the last official one that was measured. Raises ConfigError if they do not share it.
    """
    measured = [entry for entry in entries if entry.runs]
    data = sorted({(entry.dataset, entry.task) for entry in measured})
    if len(data) != 1:
        names = ", ".join(" ".join(one) for one in data) or "none"
        raise ConfigError(
            f"--intervals and --html need experiments measured on one data set, found {names}; name their folders"
        )
    if not family:
        table = table_of(measured)
        known = {name for entry in measured for run in entry.runs for name in run.metrics}
        family = [name for name in (*table.names, *table.default) if name in known][-1]
    return Request(measured, experiment_of(measured[0].paths[0]), family, **asked)


def experiment_of(results: Path) -> Experiment:
    """The experiment that a results.json came from: the nearest config.py above it. Raises ConfigError without one."""
    for folder in results.resolve().parents:
        if (folder / "config.py").is_file():
            return load_experiment(folder)
    raise ConfigError(f"{results} lies in no experiment folder, so its annotations and images cannot be found.")
