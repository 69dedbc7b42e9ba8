"""One owner of a run folder: live ones are respected and named, dead ones are not waited for."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest

from cvpods_ext.errors import ConfigError, StorageError
from cvpods_ext.runtime import run_lock
from cvpods_ext.runtime.run_lock import LOCK, Owner, RunLock

HOLD = """
import sys, os, time
from pathlib import Path
from cvpods_ext.runtime.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    if "fork" in sys.argv and os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
        os._exit(0)
    os.write(1, b"held\\n")
    time.sleep(60)
"""


@contextmanager
def another_process(folder, *arguments):
    """A process that holds the folder; yields it, and all that it printed first."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        printed = [process.stdout.readline().strip() for _ in range(1 + len(arguments))]
        assert "held" in printed
        yield process, printed
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(run_lock, "_SETTLE", 0.05)


def assert_refused(folder, words):
    with pytest.raises(ConfigError, match=words) as raised, RunLock(folder):
        pass
    return str(raised.value)


def elsewhere(folder, silent_for):
    """What a run on another machine left that was last heard of some seconds ago."""
    owner = replace(Owner.here("pods_train"), host="gpu07", machine="another boot", pid=1, started="2026-01-01")
    (folder / LOCK).write_text(json.dumps(asdict(owner)))
    then = time.time() - silent_for
    os.utime(folder / LOCK, (then, then))


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path):
    with another_process(tmp_path) as (owner, _):
        text = assert_refused(tmp_path, f"pods_train on host {socket.gethostname()}, process {owner.pid}, since 20")
        assert str(tmp_path) in text
        assert "output=..." in text
    with RunLock(tmp_path):  # it was killed, and the system released its lock
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_test_locks_out_another_test_but_no_run(tmp_path):
    with run_lock.lock_of_test(tmp_path):
        assert sorted(os.listdir(tmp_path)) == [run_lock.TEST_LOCK]
        with another_process(tmp_path), pytest.raises(ConfigError, match=r"in use by pods_train on host"):
            RunLock(tmp_path).__enter__()
    held = HOLD.replace("RunLock(Path(sys.argv[1]))", "lock_of_test(Path(sys.argv[1]))").replace(
        "import RunLock", "import lock_of_test"
    )
    process = subprocess.Popen([sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=f"in use by pods_test on host .*, process {process.pid}") as raised,
            run_lock.lock_of_test(tmp_path),
        ):
            pass
        assert "--weights FILE" in str(raised.value)
        with RunLock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with run_lock.lock_of_test(tmp_path):
        pass


@pytest.mark.parametrize("alive", [ProcessLookupError, PermissionError, None])
def test_without_proc_a_process_of_another_user_counts_as_alive(monkeypatch, alive):
    def kill(pid, number):
        if alive is not None:
            raise alive

    monkeypatch.setattr(run_lock.Path, "exists", lambda path: False)
    monkeypatch.setattr(os, "kill", kill)
    assert run_lock._born_without_proc(12345) == ("" if alive is ProcessLookupError else "alive")


def test_folders_are_made_and_other_folders_are_free(tmp_path):
    with RunLock(tmp_path / "a" / "b"), RunLock(tmp_path / "c"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()


def test_a_reader_that_outlives_its_run_does_not_hold_the_folder(tmp_path):
    with another_process(tmp_path, "fork") as (owner, printed):
        child = next(int(line) for line in printed if line != "held")
        owner.kill()
        owner.wait()
        with RunLock(tmp_path):
            os.kill(child, signal.SIGKILL)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_live_process_is_recognised_by_its_id_and_start(tmp_path):
    with another_process(tmp_path) as (owner, _):
        assert_refused(tmp_path, f"process {owner.pid}")
    with RunLock(tmp_path):
        pass


@pytest.mark.usefixtures("no_locks")
def test_a_process_id_that_is_used_again_is_not_the_owner(tmp_path):
    owner = replace(Owner.here("pods_train"), pid=os.getppid(), born="1")
    (tmp_path / LOCK).write_text(json.dumps(asdict(owner)))
    with RunLock(tmp_path):
        pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_last_of_two_that_start_together_wins(tmp_path, monkeypatch):
    other = replace(Owner.here("pods_train"), pid=os.getppid(), born=run_lock._born(os.getppid()))

    def write_at_the_same_time(seconds):
        (tmp_path / LOCK).write_text(json.dumps(asdict(other)))

    monkeypatch.setattr(time, "sleep", write_at_the_same_time)
    assert_refused(tmp_path, f"process {os.getppid()}")


def test_a_silent_owner_on_another_machine_is_dead(tmp_path):
    elsewhere(tmp_path, silent_for=3600)
    began = time.monotonic()
    with RunLock(tmp_path):
        pass
    assert time.monotonic() - began < 5


def test_an_owner_on_another_machine_that_was_heard_of_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_BEAT", 0.1)
    elsewhere(tmp_path, silent_for=88)
    with RunLock(tmp_path):  # two seconds later it counts as dead
        pass
    elsewhere(tmp_path, silent_for=1)
    sign = threading.Timer(0.3, os.utime, (tmp_path / LOCK,))
    sign.start()
    assert_refused(tmp_path, "pods_train on host gpu07, process 1, since 2026-01-01")
    sign.join()


def test_the_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_BEAT", 0.05)
    with RunLock(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        deadline = time.monotonic() + 10
        while os.stat(tmp_path / LOCK).st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b'{"pid": 1}', b"[" * 60_000])
def test_a_damaged_lock_that_nobody_holds_is_taken_over(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match=r"cannot write .*run\.lock \(Not a directory|File exists"),
        RunLock(tmp_path / "file" / "run"),
    ):
        pass
