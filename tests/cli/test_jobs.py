"""Commands one after another and side by side."""

import pytest

from cvpods_ext.cli import jobs
from cvpods_ext.cli.jobs import Job
from cvpods_ext.errors import TrainingError


@pytest.fixture
def order(tmp_path, monkeypatch):
    """Commands that wait a little, write their first argument to the returned file, and fail if it is called bad."""
    file = tmp_path / "order.txt"
    code = (
        "import sys, time; time.sleep(0.1); open({!r}, 'a').write(sys.argv[1] + '\\n'); sys.exit(sys.argv[1] == 'bad')"
    )
    monkeypatch.setattr(jobs, "_code", lambda name: code.format(str(file)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return file


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_second_stage_waits_for_its_first(tmp_path, order, at_once):
    steps = (("train", "train first"), ("test", "test first"))
    first, second = Job("first", tmp_path / "1", steps), Job("second", tmp_path / "2", (("train", "second"),), "first")
    finished = []
    jobs.run([first, second], at_once, finished.append)
    assert order.read_text().splitlines() == ["train first", "test first", "second"]
    assert finished == [first, second]
    if at_once > 1:
        assert "$ pods_test 'test first'" in (tmp_path / "1" / "console.txt").read_text()


def test_side_by_side_a_failure_names_the_file_with_its_words(tmp_path, order):
    job = Job("first", tmp_path / "1", (("train", "bad"), ("test", "never")))
    with pytest.raises(TrainingError, match=r"pods_train failed for first: see .*console\.txt"):
        jobs.run([job], 2, lambda job: None)
    assert order.read_text() == "bad\n"


def test_one_after_another_a_failure_ends_with_its_status(tmp_path, order):
    with pytest.raises(SystemExit) as stopped:
        jobs.run([Job("first", tmp_path, (("train", "bad"), ("test", "never")))], 1, lambda job: None)
    assert stopped.value.code == 1
    assert order.read_text() == "bad\n"
