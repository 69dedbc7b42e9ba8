"""A new run in the folder of an earlier one: nothing is moved for good before its first checkpoint is on disk."""

import json
import os

import pytest

from cvpods_ext.engine import earlier_run
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.earlier_run import FAILED_START, hold, put_back, set_aside, starting_over
from cvpods_ext.runtime.run_lock import LOCK

RECORDS = ("config.json", "metrics.jsonl", "events.out.tfevents.1", "skipped.rank1.txt")
STAY = ("log.txt", LOCK)


def content_of(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(folder, names, text):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def folder(tmp_path):
    """A finished run with its predictions, a log and a smoke run beside it."""
    names = (*RECORDS, "checkpoints.json", "model_iter_0000004.pth", "model_final.pth", "results.json")
    write(tmp_path, (*names, "inference/val/detections-0-0.parquet", "tests/iter_0000004/results.json"), "earlier")
    write(tmp_path, (*STAY, "smoke/model_final.pth", "previous-1/model_final.pth"), "stays")
    return tmp_path


def test_until_the_first_checkpoint_everything_that_continues_or_tests_a_run_stays(folder):
    before = content_of(folder)
    hold(folder)
    after = content_of(folder)
    assert {name for name in before if name not in after} == set(RECORDS)
    assert {name: text for name, text in after.items() if not name.startswith(".replaced/")} == {
        name: text for name, text in before.items() if name not in RECORDS
    }


def test_a_run_that_fails_before_its_first_checkpoint_leaves_the_folder_as_it_was(folder):
    before = content_of(folder)

    def fail():
        with starting_over(folder):
            write(folder, RECORDS, "new")
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    after = content_of(folder)
    assert {name: text for name, text in after.items() if not name.startswith(FAILED_START)} == before
    assert {name: text for name, text in after.items() if name.startswith(FAILED_START)} == {
        f"{FAILED_START}/{name}": "new" for name in RECORDS
    }


def test_with_its_first_checkpoint_the_earlier_run_is_set_aside_whole(folder):
    before = content_of(folder)
    with starting_over(folder):
        write(folder, (*RECORDS, "trace.json"), "new")
        set_aside(folder)
        write(folder, ("model_iter_0000002.pth",), "new")
    stays = {name: text for name, text in before.items() if text == "stays"}
    earlier = {f"previous-2/{name}": text for name, text in before.items() if text == "earlier"}
    new = dict.fromkeys((*RECORDS, "trace.json", "model_iter_0000002.pth"), "new")
    assert content_of(folder) == stays | earlier | new


@pytest.mark.parametrize("moves", range(1, 12))
def test_a_kill_at_any_move_is_undone_by_the_next_start(folder, moves, monkeypatch):
    before, left = content_of(folder), [moves]

    class Killed(BaseException):
        """Nothing in the process survives it, so nothing may catch it."""

    def move(source, target, rename=os.rename):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(earlier_run, "_move", move)
    try:
        hold(folder)
        write(folder, RECORDS, "new")
        set_aside(folder)
    except Killed:
        monkeypatch.undo()
        put_back(folder)
        assert {name: text for name, text in content_of(folder).items() if not name.startswith(FAILED_START)} == before
    else:
        assert (folder / "previous-2" / "model_final.pth").read_text() == "earlier"


def test_a_folder_without_checkpoints_is_left_alone(tmp_path):
    write(tmp_path, RECORDS, "of a run that never got far")
    before = content_of(tmp_path)
    with starting_over(tmp_path):
        assert content_of(tmp_path) == before
        assert set_aside(tmp_path) is None
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("content", ["", "5", '["../outside", "/etc/hostname", 7, "absent"]'])
def test_a_damaged_note_of_what_to_move_moves_nothing_else(folder, content):
    hold(folder)
    (folder / ".replaced" / "others.json").write_text(content)
    (folder.parent / "outside").touch()
    target = set_aside(folder)
    assert sorted(path.name for path in target.iterdir()) == sorted(RECORDS)
    assert (folder.parent / "outside").exists()


def test_saving_the_first_checkpoint_sets_the_earlier_run_aside_even_if_its_list_is_damaged(tmp_path):
    checkpoints = CheckpointFolder(tmp_path)
    first = checkpoints.save({"iteration": 4, "model": {"old": 1}})
    (tmp_path / "checkpoints.json").write_text("damaged")
    hold(tmp_path)
    assert checkpoints.save({"iteration": 4, "model": {}}) == first
    assert [entry["iteration"] for entry in json.loads((tmp_path / "checkpoints.json").read_text())["checkpoints"]] == [
        4
    ]
    assert (tmp_path / "previous-1" / "checkpoints.json").read_text() == "damaged"
    assert (tmp_path / "previous-1" / first.name).read_bytes() != first.read_bytes()


def test_a_checkpoint_of_this_launch_is_told_from_one_of_another(tmp_path):
    checkpoints = CheckpointFolder(tmp_path)
    assert not checkpoints.is_of_this_launch()
    checkpoints.save({"iteration": 4, "model": {}})
    assert checkpoints.is_of_this_launch()
    index = tmp_path / "checkpoints.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "launch": "another"}))
    assert not checkpoints.is_of_this_launch()
