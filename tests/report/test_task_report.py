"""What pods_compare asks a task: found by its name, absent ones say so, and a new one needs no change elsewhere."""

import subprocess
import sys

import pytest
from results_files import write_experiment, write_results

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report.runs import collect
from cvpods_ext.report.task_report import find, known_reports, request_for

OTHER_TASK = """
import sys, types
from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable
from cvpods_ext.report.table import Cell, Table
from cvpods_ext.report.task_report import Details, PagePart, TaskReport

class Toy(TaskReport):
    def open(self, request):
        return ToyDetails()

class ToyDetails(Details):
    def intervals(self):
        return [Table("toy intervals", ("experiment",), ((Cell("a"),),))]
    def page(self):
        return PagePart(body="<p>worst classes</p>")

metric = Metric(name="top1_error", description="an error", higher_is_better=False)
family = Family(name="top", title="error", metrics=(metric,), headline="top1_error", columns=(("top1_error",),))
module = types.ModuleType("toy.task")
module.METRICS, module.REPORT = MetricTable(families=(family,)), Toy()
sys.modules["toy.task"] = module
"""
COMPARE = "from cvpods_ext.cli.compare import main; main(); assert 'torch' not in sys.modules"


def toy_results(root):
    for name, value in (("a", 20.0), ("b", 10.0)):
        folder = write_experiment(root / name)
        metrics = {"top": {"top1_error": value}}
        Results(experiment=name, dataset="d", task="toy.task", metrics=metrics).write(folder / "results.json")


def run(code, *arguments):
    command = [sys.executable, "-c", f"import sys\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_another_task_has_tables_intervals_and_a_page_without_a_change_here(tmp_path):
    toy_results(tmp_path)
    page, table = tmp_path / "page.html", tmp_path / "t.md"
    done = run(OTHER_TASK + COMPARE, tmp_path, "--html", page, "--out", table)
    assert done.returncode == 0, done.stderr
    assert "| b | 10.0 |" in table.read_text()
    assert "toy intervals" in table.read_text()
    assert "<p>worst classes</p>" in page.read_text()


def test_a_task_without_a_report_says_so_and_flags_of_another_task_are_refused(tmp_path):
    toy_results(tmp_path)
    without = OTHER_TASK.replace(", module.REPORT = ", ", module.NOTHING = ")
    done = run(without + COMPARE, tmp_path, "--intervals")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the task 'toy.task' has neither intervals nor a page" in done.stderr
    done = run(OTHER_TASK + COMPARE, tmp_path, "--iou", "0.3")
    assert done.returncode == 2
    assert "--iou cannot be used for results of toy.task" in done.stderr


def test_reports_are_found_by_the_name_of_the_task():
    assert known_reports()["detection"] is find("detection")
    for name in ("table", "os", "os.path", "nowhere", "../detection", "", "never.imported"):
        with pytest.raises(ConfigError, match="has neither intervals nor a page"):
            find(name)


def test_the_last_official_family_is_looked_at_and_data_sets_are_not_mixed(tmp_path):
    write_experiment(tmp_path / "a")
    metrics = {"segm_fixed": {"AP": 1.0}, "segm": {"AP": 1.0}, "bbox": {"AP": 1.0}}
    Results(experiment="a", dataset="d", metrics=metrics).write(tmp_path / "a" / "results.json")
    entries = collect([tmp_path]).entries
    assert request_for(entries, "").family == "segm"
    assert request_for(entries, "bbox", resamples=7).resamples == 7
    write_experiment(tmp_path / "b")
    write_results(tmp_path / "b", "b", {"AP": 1.0}, dataset="other")
    with pytest.raises(ConfigError, match="one data set, found d detection, other detection"):
        request_for(collect([tmp_path]).entries, "")
