"""pods_sweep: every combination is trained and tested once, and stands in the table and on the page."""

import importlib
import sys

import pytest
import tiny_experiment

from cvpods_ext.cli import jobs
from cvpods_ext.cli import sweep as pods_sweep
from cvpods_ext.evaluation.results import Results

CALLED: list[tuple[str, tuple[str, ...]]] = []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small experiment, and commands that run in this process and are noted."""
    folder = tiny_experiment.make_experiment(tmp_path / "tiny", tiny_experiment.make_data(tmp_path))

    def command(name, *arguments):
        CALLED.append((name, arguments))
        monkeypatch.setattr(sys, "argv", [f"pods_{name}", *arguments])
        importlib.import_module(f"cvpods_ext.cli.{name}").main()

    monkeypatch.setattr(jobs, "command", command)
    return folder


def sweep(monkeypatch, folder, *arguments):
    """Run it; returns the commands that it called."""
    CALLED.clear()
    monkeypatch.setattr(sys, "argv", ["pods_sweep", *arguments, "--dir", str(folder), "--device", "cpu"])
    pods_sweep.main()
    return [name for name, _ in CALLED]


SETTINGS = ("schedule.lr=0.001,0.01", "schedule.iters=2", "schedule.warmup_iters=1", "data.workers=0")


def test_runs_are_made_once_compared_and_drawn(folder, monkeypatch, capsys):
    assert sweep(monkeypatch, folder, *SETTINGS, "--seeds", "2") == ["train", "test"] * 4
    said = capsys.readouterr().out
    assert "(schedule.lr=0.001)" in said
    assert "2 (0, 1)" in said
    root = folder / "outputs" / "sweep"
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("results.json"))
    assert found == [f"schedule.lr={rate}/seed{seed}/results.json" for rate in ("0.001", "0.01") for seed in (0, 1)]
    assert Results.read(root / found[0]).changes["schedule.lr"][1] == 0.001
    assert "schedule.lr=0.01" in (root / "table.md").read_text()
    page = (root / "sweep.html").read_text()
    assert page.count("<circle") >= 2
    assert "bbox against schedule.lr" in page
    assert sweep(monkeypatch, folder, *SETTINGS, "--seeds", "2") == []
    assert "4 runs, 4 of them done" in capsys.readouterr().out
    (root / found[0]).unlink()  # as if it had been stopped between training and test
    assert sweep(monkeypatch, folder, *SETTINGS, "--seeds", "2") == ["train", "test"]
    assert "--resume" in CALLED[0][1]
    changed = [text.replace("iters=2", "iters=3") for text in SETTINGS]
    assert sweep(monkeypatch, folder, *changed) == ["train", "test"] * 2
    assert "--resume" not in CALLED[0][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schedule.lr=0.01,fast"], "schedule.lr must be float"),
        (["schedule.lrr=0.01"], "unknown config key 'schedule.lrr'"),
        (["seed=1,2"], "--seeds says how many seeds"),
        (["schedule.lr=0.01", "--seeds", "0"], "must be at least 1"),
        (["data.train_sizes=(96,),(1,"], "not closed"),
    ],
)
def test_mistakes_are_told_before_the_first_run(folder, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit):
        sweep(monkeypatch, folder, *arguments)
    assert message in " ".join(capsys.readouterr().err.split())
    assert CALLED == []
