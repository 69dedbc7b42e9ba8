"""pods_zoo: what is run, in which order, and what a method that does not exist is told."""

from pathlib import Path

import pytest

from cvpods_ext.cli import mini_runs, zoo
from cvpods_ext.errors import ConfigError, TrainingError

MINI = Path(__file__).resolve().parents[2] / "playground" / "mini"


def methods(folders):
    return [folder.name.removeprefix(mini_runs.PREFIX) for folder in folders]


def test_every_experiment_comes_once_and_behind_what_it_starts_from():
    folders = zoo.in_order(MINI)
    assert sorted(folders) == sorted(path.parent for path in MINI.glob(f"{mini_runs.PREFIX}*/config.py"))
    for position, folder in enumerate(folders):
        first = mini_runs.first_stage(folder)
        assert not first or MINI / first in folders[:position]


def test_chosen_methods_bring_their_first_stages_along():
    assert methods(zoo.in_order(MINI, ["norcal", "rfs.cos_norm.disalign"])) == [
        "trunk",
        "plain",
        "norcal",
        "rfs.cos_norm",
        "rfs.cos_norm.disalign",
    ]


def test_calibrations_after_training_are_only_tested(monkeypatch):
    called = []
    monkeypatch.setattr(mini_runs, "command", lambda name, *arguments: called.append((name, arguments)))
    folders = zoo.in_order(MINI, ["norcal", "bags"])
    results = mini_runs.run(folders, seeds=1)
    assert [name for name, _ in called] == ["train", "train", "test", "test", "train", "test"]
    weights = str(MINI / f"{mini_runs.PREFIX}plain" / "outputs" / "seed0" / "model_final.pth")
    assert weights in called[3][1]
    assert "model.init=../mask_rcnn.narrow.fpn64.box.96.plain/outputs/seed0/model_final.pth" in called[4][1]
    assert methods(folder.parent.parent for folder in results) == ["plain", "norcal", "bags"]


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no method called sesaw in .*; there are .*seesaw"):
        zoo.in_order(MINI, ["sesaw"])


def fake_commands(monkeypatch, file):
    """Commands that wait a little, write their first argument to `file`, and fail if it is called bad."""
    code = (
        "import sys, time; time.sleep(0.1); open({!r}, 'a').write(sys.argv[1] + '\\n'); sys.exit(sys.argv[1] == 'bad')"
    )
    monkeypatch.setattr(mini_runs, "_code", lambda name: code.format(str(file)))
    monkeypatch.setattr(mini_runs, "first_stage", lambda folder: {"second": "first"}.get(folder.name, ""))


def test_side_by_side_a_second_stage_waits_for_its_first(tmp_path, monkeypatch):
    fake_commands(monkeypatch, tmp_path / "order.txt")
    runs = {
        ("first", 0): (tmp_path / "first", [("train", "train first"), ("test", "test first")]),
        ("second", 0): (tmp_path / "second", [("train", "train second")]),
    }
    mini_runs._side_by_side(runs, jobs=2)
    assert (tmp_path / "order.txt").read_text().splitlines() == ["train first", "test first", "train second"]
    assert "$ pods_test 'test first'" in (tmp_path / "first" / "outputs" / "seed0" / "console.txt").read_text()


def test_side_by_side_a_failure_names_the_file_with_its_words(tmp_path, monkeypatch):
    fake_commands(monkeypatch, tmp_path / "order.txt")
    with pytest.raises(TrainingError, match=r"pods_train failed for first: its words are in .*console\.txt"):
        mini_runs._side_by_side({("first", 0): (tmp_path / "first", [("train", "bad"), ("test", "never")])}, jobs=2)
    assert (tmp_path / "order.txt").read_text() == "bad\n"
