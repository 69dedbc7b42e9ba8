"""Where faults are injected: the tiny experiment, its undisturbed runs, and the processes that a run consists of."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from processes import TIMEOUT, differences, last_iteration, start, train
from tiny_experiment import make_data, make_experiment

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"TINY_SECONDS": "0.02"}  # a part of a step takes long enough to be hit


@dataclass
class Outcome:
    """One fault: what the run did by itself, what was lost in the end, and what differs from an undisturbed run."""

    fault: str
    happened: str
    lost: str
    differs: list[str]
    kills: int = 0

    def as_row(self) -> dict:
        return {**asdict(self), "bit_equal": not self.differs}


class Workshop:
    """Data, the experiment and undisturbed runs, made once and shared by the scenarios."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = make_data(root)
        self.experiment = make_experiment(root / "experiment", self.data)
        self._count = 0

    def output(self, name: str) -> Path:
        self._count += 1
        return self.root / f"{name}-{self._count}"

    def reference(self, ranks: int = 1, experiment: Path | None = None) -> Path:
        experiment = experiment or self.experiment
        output = self.root / f"reference-{experiment.name}-{ranks}"
        if not output.exists():
            codes = train(experiment, output, ranks=ranks)
            assert codes == [0] * ranks, codes
        return output


def resumed(
    shop: Workshop,
    output: Path,
    fault: str,
    happened: str,
    *overrides: str,
    ranks: int = 1,
    experiment: Path | None = None,
    lost: str = "nothing",
) -> Outcome:
    run = start(experiment or shop.experiment, output, *overrides, ranks=ranks, resume=True)
    codes = run.wait()
    assert codes == [0] * ranks, (codes, run.log()[-3000:])
    found = differences(output, shop.reference(ranks, experiment))
    return Outcome(fault, happened, lost, found, kills=1)


@contextmanager
def command(shop: Workshop, output: Path, *arguments: str):
    """pods_train as a user starts it, in a session of its own; killed at the end if it still runs."""
    line = [sys.executable, "-m", "cvpods_ext.cli.train", "--dir", str(shop.experiment), "--device", "cpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TINY_SECONDS": "0.1"}
    with open(output.parent / f"{output.name}.rank0.txt", "ab") as log:
        process = subprocess.Popen(
            [*line, f"output={output}"], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    family = {process.pid}
    try:
        yield process
    finally:
        family |= set(descendants(process.pid))
        if process.poll() is None:
            process.kill()
        for pid in family - {process.pid}:
            kill(pid)
        process.wait(30)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def wait_for(output: Path, iteration: int, launcher: subprocess.Popen) -> None:
    def reached() -> bool:
        log = output.parent / f"{output.name}.rank0.txt"
        assert launcher.poll() is None, log.read_text()[-3000:]
        return last_iteration(output) >= iteration

    until(reached, f"step {iteration}")


def wait_rewound(output: Path, launcher: subprocess.Popen) -> None:
    """Until the restarted run says where it goes on."""
    log = output / "log.txt"
    before = log.read_text().count("resuming from")
    until(lambda: launcher.poll() is not None or log.read_text().count("resuming from") > before, "a restart")


def wait_gone(pids: list[int]) -> None:
    for pid in pids:
        until(lambda pid=pid: _state(pid) in ("", "Z"), f"the end of process {pid}")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


def workers(launcher: int) -> list[int]:
    """The training processes of a launcher: those of its children that run our code, not multiprocessing's helpers."""

    def is_worker(pid: int) -> bool:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()

    return [pid for pid in children(launcher) if is_worker(pid)]
