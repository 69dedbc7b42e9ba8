import os
import signal
import time

from cvpods_ext.runtime.hang import HangDetector


def wait_for(path, text):
    for _ in range(200):
        if path.is_file() and text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} did not appear in {path}")


def test_stacks_are_written_when_nothing_moves(tmp_path):
    with HangDetector(tmp_path / "stacks.txt", seconds=0.2):
        wait_for(tmp_path / "stacks.txt", "test_stacks_are_written_when_nothing_moves")
    assert "no progress for" in (tmp_path / "stacks.txt").read_text()


def test_nothing_is_left_when_all_goes_well(tmp_path):
    with HangDetector(tmp_path / "stacks.txt", seconds=30) as alive:
        alive.beat()
    assert list(tmp_path.iterdir()) == []


def test_work_without_steps_is_no_hang(tmp_path):
    with HangDetector(tmp_path / "stacks.txt", seconds=0.2) as alive:
        with alive.suspended():
            time.sleep(0.5)
        alive.beat()
    assert list(tmp_path.iterdir()) == []


def test_stacks_can_be_asked_for_with_a_signal(tmp_path):
    with HangDetector(tmp_path / "stacks.txt", seconds=0):
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for(tmp_path / "stacks.txt", "test_stacks_can_be_asked_for_with_a_signal")
