"""docs/add_a_method.md works as it stands: its files, its test, and a few steps of its commands."""

import add_a_method
import pytest


@pytest.mark.slow
def test_the_commands_of_the_page_end_in_a_table_with_the_new_method(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["add_a_method.py", "--steps", "2"])
    assert add_a_method.main() == 0
    shown = capsys.readouterr().out
    assert "2 passed" in shown
    assert "class_balanced" in shown.split("pods_compare")[1]


def test_the_files_of_the_page_pass_their_own_test_and_build_a_network(tmp_path, monkeypatch):
    from cvpods_ext.config.experiment import load_experiment

    page = add_a_method.PAGE.read_text(encoding="utf-8")
    folder = add_a_method.prepare(tmp_path, page)
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))
    assert "2 passed" in add_a_method.run("python -m pytest -q test_class_balanced.py", folder, steps=1)
    config = load_experiment(folder).config
    assert config.task == "detection"
    assert set(add_a_method.code_blocks(page)) == {"class_balanced.py", "test_class_balanced.py", "net.py", "config.py"}
