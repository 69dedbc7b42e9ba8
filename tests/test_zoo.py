"""pods_zoo: what is run, in which order, and what a method that does not exist is told."""

from pathlib import Path

import pytest

from cvpods_ext.cli import mini_runs, zoo
from cvpods_ext.errors import ConfigError

MINI = Path(__file__).resolve().parents[1] / "playground" / "mini"


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
