"""Tasks and metric tables are found by name, and names from files import nothing."""

import subprocess
import sys

import pytest

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection import METRICS
from cvpods_ext.tasks import detection
from cvpods_ext.tasks.task import find, known_tasks, metric_table


def test_a_task_of_the_package_is_found_by_its_module():
    assert find("detection") is detection.TASK
    assert metric_table("detection") is METRICS
    assert "detection" in known_tasks()
    assert not {"task", "drawing"} & set(known_tasks())


@pytest.mark.parametrize("look_up", [find, metric_table])
def test_an_unknown_task_is_refused_with_the_known_ones(look_up):
    with pytest.raises(ConfigError, match=r"unknown task 'detektion': there is no module .*\(known: .*detection"):
        look_up("detektion")
    with pytest.raises(ConfigError, match=r"unknown task 'absent.toy': there is no module absent"):
        look_up("absent.toy")
    with pytest.raises(ConfigError, match="is no name of a module"):
        look_up("../detection")
    with pytest.raises(ConfigError, match="defines no"):
        look_up("json.decoder")


def test_what_a_task_needs_and_lacks_is_not_mistaken_for_the_task(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "toy.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
        find("own.toy")


def test_a_name_from_a_file_imports_no_other_module(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "harmless.py").write_text("from cvpods_ext.evaluation.detection import METRICS\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"import its module first, for example .*import own\.harmless"):
        metric_table("own.harmless", only_known=True)
    assert "own.harmless" not in sys.modules
    assert metric_table("detection", only_known=True) is METRICS
    assert metric_table("own.harmless") is METRICS
    assert metric_table("own.harmless", only_known=True) is METRICS


def test_metric_tables_come_without_torch():
    code = (
        "import sys; from cvpods_ext.tasks.task import known_tasks, metric_table\n"
        "assert known_tasks()\n"
        "for name in known_tasks(): metric_table(name)\n"
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
