"""Locks of a run folder: a second pods_train, or pods_test, stops with an error that names the first. Imports no torch.

The owner holds a POSIX lock on `run.lock` or `test.lock`, which the system releases when the process dies, however it
dies; readers that it forks do not inherit it. Where a file system has no locks, or does not pass them on to other
machines, the content of the file decides: who owns it, and when it last gave a sign of life.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime.files import storage_error

logger = logging.getLogger(__name__)

LOCK = "run.lock"
TEST_LOCK = "test.lock"
_TWO_RUNS = (
    "Two runs cannot write into one folder: stop that one first, or give this one another folder with output=..."
)
_TWO_TESTS = (
    "Two tests cannot write the same predictions: wait for that one, or give this one another folder with output=... "
    "and the weights with --weights FILE"
)
_BEAT = 15.0  # seconds between two signs of life
_SILENCE = 90.0  # seconds without one after which an owner on another machine counts as dead
_SETTLE = 0.5  # seconds in which the last of two writers shows, where there are no locks
_HELD = (errno.EACCES, errno.EAGAIN)


@dataclass(frozen=True)
class Owner:
    """The process that writes into a folder: where and since when. `machine` tells equal host names apart."""

    host: str
    machine: str
    pid: int
    born: str  # of the process, in the system's own units: process ids are used again
    started: str
    command: str

    @classmethod
    def here(cls, command: str) -> Owner:
        """This process."""
        now = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return cls(socket.gethostname(), _machine(), os.getpid(), _born(os.getpid()), now, command)

    def __str__(self) -> str:
        return f"{self.command} on host {self.host}, process {self.pid}, since {self.started}"


class RunLock:
    """Held by the first process of a run for as long as it writes into `folder`; the file is gone afterwards.

    Entering raises ConfigError, which names the owner, if another run holds the folder, and StorageError if the folder
    cannot be written to. What a dead run left is taken over: at once on its own machine; on another one after
    90 seconds without a sign of life.
    """

    def __init__(self, folder: Path, command: str = "pods_train", name: str = LOCK, remedy: str = _TWO_RUNS) -> None:
        self._path, self._owner, self._remedy = folder / name, Owner.here(command), remedy
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)

    def __enter__(self) -> RunLock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file, works = self._acquire()
        except OSError as error:
            raise storage_error(self._path, error) from error
        try:
            self._refuse_if_owned(works)
            self._write()
            if not works:
                time.sleep(_SETTLE)
                self._refuse_if_owned(works)
        except BaseException:
            os.close(self._file)
            raise
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        if _is_still(self._path, self._file):
            with suppress(OSError):
                self._path.unlink()
        os.close(self._file)

    def _acquire(self) -> tuple[int, bool]:
        """The open file, and whether the system locked it for us."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            works = True
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                works = False
                if error.errno in _HELD:
                    owner = _read(file)
                    os.close(file)
                    raise self._in_use(owner) from None
            if _is_still(self._path, file):
                return file, works
            os.close(file)  # its owner removed it between our two calls

    def _refuse_if_owned(self, locks_work: bool) -> None:
        owner = _read(self._file)
        if owner is None or owner == self._owner:
            return
        if owner.machine == self._owner.machine:
            alive = not locks_work and owner.born != "" and _born(owner.pid) == owner.born
        else:
            alive = self._gives_signs_of_life(owner)
        if alive:
            raise self._in_use(owner)
        logger.info("%s is left of a run that died (%s)", self._path, owner)

    def _gives_signs_of_life(self, owner: Owner) -> bool:
        """Wait until the owner has been silent for long enough, by the clock of the disk, or makes itself heard."""
        heard = os.fstat(self._file).st_mtime
        waiting = _SILENCE - (_now_on_disk(self._path.parent) - heard)
        if waiting > 0:
            logger.warning("%s was held by %s: waiting %.0f s for a sign of life", self._path, owner, waiting)
        deadline = time.monotonic() + waiting
        while time.monotonic() < deadline:
            time.sleep(min(1.0, _BEAT / 4))
            if os.fstat(self._file).st_mtime != heard:
                return True
        return False

    def _write(self) -> None:
        content = json.dumps(asdict(self._owner), indent=2).encode() + b"\n"
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, content, 0)
            os.fsync(self._file)
        except OSError as error:
            raise storage_error(self._path, error) from error

    def _in_use(self, owner: Owner | None) -> ConfigError:
        who = "another process, which has not written its name yet" if owner is None else str(owner)
        return ConfigError(
            f"{self._path.parent} is in use by {who}. {self._remedy} (if you are sure that it is gone, remove "
            f"{self._path})"
        )

    def _beat(self) -> None:
        while not self._end.wait(_BEAT):
            with suppress(OSError):  # a disk that is away for a while
                os.utime(self._file)


def lock_of_test(folder: Path) -> RunLock:
    """The lock of a test that writes predictions below `folder`; a run may train there meanwhile."""
    return RunLock(folder, "pods_test", TEST_LOCK, _TWO_TESTS)


def launch_id() -> str:
    """The same for all workers on this machine that one launcher starts, also after a crash; unlike any other."""
    parent = os.getppid()
    return f"{_machine()} {parent} {_born(parent)}"


def _read(file: int) -> Owner | None:
    """Who the content of a lock file names, None if nobody or if it is damaged."""
    try:
        content = json.loads(os.pread(file, 1 << 16, 0).decode("utf-8"))
        owner = Owner(**content)
        texts = (owner.host, owner.machine, owner.born, owner.started, owner.command)
        return owner if type(owner.pid) is int and all(isinstance(text, str) for text in texts) else None
    except (ValueError, TypeError, RecursionError, OSError):
        return None


def _is_still(path: Path, file: int) -> bool:
    try:
        named, opened = os.stat(path), os.fstat(file)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _now_on_disk(folder: Path) -> float:
    """The time of the machine that keeps the files, whose clock may differ from ours."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _machine() -> str:
    """Tells machines, and containers with process ids of their own, apart; the same until the next start."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str:
    """When a process of this machine started, "" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin1").rpartition(")")[2].split()
        return "" if stat[0] == "Z" else stat[19]
    except (OSError, IndexError):
        return _born_without_proc(pid)


def _born_without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:  # it lives, and belongs to another user
        return "alive"
    return "alive"
