"""pods_zoo: what is run, in which order, and what a method that does not exist is told."""

from pathlib import Path

import pytest

from cvpods_ext.cli import jobs, mini_runs, zoo
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report.compare import tables
from cvpods_ext.report.runs import group, results_of
from cvpods_ext.report.table import to_markdown

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "playground" / "mini"


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
    monkeypatch.setattr(jobs, "command", lambda name, *arguments: called.append((name, arguments)))
    folders = zoo.in_order(MINI, ["norcal", "bags"])
    mini_runs.run(mini_runs.every(folders, seeds=1))
    assert [name for name, _ in called] == ["train", "train", "test", "test", "train", "test"]
    weights = str(MINI / f"{mini_runs.PREFIX}plain" / "outputs" / "seed0" / "model_final.pth")
    assert weights in called[3][1]
    assert "model.init=../mask_rcnn.narrow.fpn64.box.96.plain/outputs/seed0/model_final.pth" in called[4][1]


def test_only_what_has_no_results_yet_is_run_and_what_it_starts_from(tmp_path):
    runs = mini_runs.every(zoo.in_order(MINI, ["norcal", "bags", "gol"]), seeds=2)
    for folder, seed in runs:
        if (folder.name, seed) not in ((f"{mini_runs.PREFIX}bags", 1), (f"{mini_runs.PREFIX}gol", 0)):
            (tmp_path / folder.name / f"seed{seed}").mkdir(parents=True)
            (tmp_path / folder.name / f"seed{seed}" / "results.json").touch()
    todo = mini_runs.missing(runs, mini_runs.below(tmp_path))
    assert [(*methods([folder]), seed) for folder, seed in todo] == [
        ("trunk", 0),
        ("trunk", 1),
        ("plain", 1),
        ("bags", 1),
        ("gol", 0),
    ]


def test_results_are_kept_beside_the_config_where_cards_look_for_them():
    folder = MINI / f"{mini_runs.PREFIX}rfs"
    assert mini_runs.beside_config((folder, 1)) / "results.json" in results_of(folder)


def test_the_table_of_the_zoo_is_the_one_of_the_kept_results():
    runs = [one for one in mini_runs.every(zoo.in_order(MINI), seeds=3) if one[0].name != mini_runs.TRUNK]
    paths = [mini_runs.beside_config(one) / "results.json" for one in runs]
    rendered = [to_markdown(table) for table in tables(group((path, Results.read(path)) for path in paths))]
    assert "\n".join(rendered) == (ROOT / "benchmarks" / "zoo" / "table.md").read_text(encoding="utf-8")


def test_changed_experiments_are_not_kept_as_the_experiment(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pods_zoo", "--only", "rfs", "schedule.iters=3", "--keep"])
    with pytest.raises(SystemExit) as stopped:
        zoo.main()
    assert stopped.value.code == 2
    assert "--keep is for the experiments as they are" in capsys.readouterr().err


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no method called sesaw in .*; there are .*seesaw"):
        zoo.in_order(MINI, ["sesaw"])
