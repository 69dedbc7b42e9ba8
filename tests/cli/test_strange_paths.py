"""Pipes, links in circles, files where folders belong, names with control characters: one message, status 2."""

import importlib
import json
import os
import shutil
import sys

import pytest
from tiny_experiment import make_data, make_experiment

from cvpods_ext.cli.common import guarded
from cvpods_ext.engine.checkpoint import INDEX
from cvpods_ext.runtime.records import METRICS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("strange")
    make_experiment(root / "experiment", make_data(root))
    os.mkfifo(root / "pipe.pth")
    (root / "circle").symlink_to(root / "circle")
    (root / "nowhere.pth").symlink_to(root / "absent.pth")
    (root / "file").write_text("x")
    (root / "folder.pth").mkdir()
    return root


@pytest.fixture
def run(made, monkeypatch, capsys):
    """Runs a command in the experiment's folder; gives status, stdout and stderr."""
    monkeypatch.chdir(made / "experiment")

    def call(command, *arguments):
        monkeypatch.setattr(sys, "argv", [f"pods_{command}", *arguments])
        try:
            importlib.import_module(f"cvpods_ext.cli.{command}").main()
            status = 0
        except SystemExit as done:
            status = done.code
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


PLACES = {"pipe.pth": "is a pipe", "circle": "is a link that leads in a circle", "folder.pth": "is a folder",
          "nowhere.pth": "is a link to", "file/x.pth": "cannot be looked at (Not a directory)"}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "command",
    [
        ("test", "--device", "cpu", "--weights", "../{}"),
        ("train", "--device", "cpu", "--weights", "../{}"),
        ("weights", "inspect", "../{}"),
        ("weights", "diff", "../{}", "../{}"),
    ],
)
def test_what_is_no_weights_file_is_told_by_what_it_is(run, command, place):
    status, _, err = run(command[0], *(text.format(place) for text in command[1:]))
    assert status == 2
    assert PLACES[place] in err or (place == "nowhere.pth" and "absent.pth does not exist" in err)
    assert "Traceback" not in err


@pytest.mark.parametrize("output", ["../file", "../file/deeper", "../circle", "../circle/deeper", "../pipe.pth"])
@pytest.mark.parametrize("command", ["train", "test"])
def test_an_output_folder_that_is_none_is_refused(run, made, command, output):
    status, _, err = run(command, "--device", "cpu", f"output={output}")
    assert status == 2
    assert "Traceback" not in err
    assert "Make room" not in err
    assert (made / "file").read_text() == "x"


@pytest.mark.parametrize("folder", ["../circle", "../file", "../pipe.pth", "../absent"])
@pytest.mark.parametrize("command", ["train", "test"])
def test_an_experiment_folder_that_is_none_is_refused(run, command, folder):
    status, _, err = run(command, "--dir", folder)
    assert status == 2
    assert "is not an experiment" in err


@pytest.mark.parametrize("name", [INDEX, METRICS, "config.json"])
def test_pipes_among_the_files_of_a_run_are_not_waited_for(run, made, name):
    output = made / "experiment" / "outputs"
    shutil.rmtree(output, ignore_errors=True)
    assert run("train", "--device", "cpu", "schedule.iters=4")[0] == 0
    (output / name).unlink()
    os.mkfifo(output / name)
    assert run("status", ".")[0] == 0
    status, _, err = run("train", "--device", "cpu", "--resume", "schedule.iters=6")
    assert status in (0, 2), err
    assert "Traceback" not in err
    shutil.rmtree(output)


def test_names_with_control_characters_do_not_reach_the_terminal(run, made):
    evil = made / "exp\x1b[2Jeriment"
    shutil.copytree(made / "experiment", evil, ignore=shutil.ignore_patterns("outputs"))
    status, out, err = run(
        "train", "--device", "cpu", "--dir", str(evil), "schedule.iters=2", "data.train_max_size=\x1b]"
    )
    assert status == 2
    shown = [out, err]
    for arguments in (
        ("train", "--device", "cpu", "--dir", str(evil), "schedule.iters=2"),
        ("status", str(evil)),
        ("test", "--dir", str(evil), "--weights", "evil\x1b[31m.pth"),
        ("weights", "inspect", str(evil / "outputs" / "model_final.pth")),
        ("data", "doctor", "--dir", str(evil)),
    ):
        shown += run(*arguments)[1:]
    assert "\\x1b" in "".join(shown)
    assert not [text for text in shown if "\x1b" in text]


def test_a_record_far_beyond_the_end_is_not_the_progress_of_a_run(run, made):
    output = made / "experiment" / "outputs" / "status"
    output.mkdir(parents=True)
    config = {"experiment": "x", "config": {"schedule.iters": 100, "log_every": 1}}
    (output / "config.json").write_text(json.dumps(config))
    records = [{"iteration": i, "time": 0.5, "total_loss": 1.0} for i in (7, 8, 999_999, 9)]
    (output / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records))
    status, out, _ = run("status", str(output))
    shutil.rmtree(output)
    assert status == 0
    assert "9 / 100 (9%)" in " ".join(out.split())


def test_a_current_folder_that_is_gone_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as ended:
        guarded("pods_any", lambda: None)
    assert ended.value.code == 2
    assert "the current folder is gone" in capsys.readouterr().err
