"""Training runs as real processes that can be killed. They are forked from a server that has torch loaded already."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cvpods_ext.config.run_options import RunOptions

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "cvpods_ext.engine.train",
        "cvpods_ext.cli.train",
        "cvpods_ext.tasks.detection",
        "torch._dynamo",
        "tensorboard.compat",
    ]
)
TIMEOUT = 300  # seconds; the machine may be busy


@dataclass
class Run:
    """The processes of one run: started by `start`, gone when `wait` returns."""

    output: Path
    processes: list[Any] = field(default_factory=list)

    def wait(self) -> list[int]:
        """Exit codes of all ranks; minus the signal for killed ones."""
        deadline = time.monotonic() + TIMEOUT
        for process in self.processes:
            process.join(max(0.1, deadline - time.monotonic()))
        alive = [process.pid for process in self.processes if process.is_alive()]
        self.kill()
        assert not alive, f"processes {alive} did not end; {self.log()[-2000:]}"
        return [process.exitcode for process in self.processes]

    def wait_until(self, iteration: int) -> None:
        """Until rank 0 has recorded `iteration` finished steps."""
        deadline = time.monotonic() + TIMEOUT
        while last_iteration(self.output) < iteration:
            assert any(process.is_alive() for process in self.processes), self.log()[-3000:]
            assert time.monotonic() < deadline, "the run is stuck"
            time.sleep(0.01)

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to one rank, or to all."""
        for process in self.processes if rank is None else [self.processes[rank]]:
            if process.is_alive():
                os.kill(process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join(30)

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.output.parent.glob(f"{self.output.name}.rank*.txt")))


def start(
    experiment: Path,
    output: Path,
    *overrides: str,
    ranks: int = 1,
    prepare: tuple[Callable[..., None], tuple] | None = None,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> Run:
    """Start a training run of `ranks` processes; `prepare` is called in each of them before it trains."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    run = Run(output)
    for rank in range(ranks):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        variables = {**{key: str(value) for key, value in world.items()}, **(environment or {})}
        log = output.parent / f"{output.name}.rank{rank}.txt"
        arguments = (str(experiment), [f"output={output}", *overrides], False, RunOptions(**options))
        process = _CONTEXT.Process(target=_child, args=(arguments, variables, str(log), prepare, sys.path))
        process.start()
        run.processes.append(process)
    return run


def train(experiment: Path, output: Path, *overrides: str, **how: Any) -> list[int]:
    """Run to its end; returns the exit codes."""
    return start(experiment, output, *overrides, **how).wait()


@contextmanager
def running(*args: Any, **how: Any):
    """A started run that is gone afterwards, whatever happens."""
    run = start(*args, **how)
    try:
        yield run
    finally:
        run.kill()


def _child(arguments: tuple, variables: dict[str, str], log: str, prepare: Any, path: Sequence[str]) -> None:
    sys.path[:] = path
    os.environ.update(variables)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    from cvpods_ext.cli.train import _work
    from cvpods_ext.engine.distributed.launch import _worker

    if prepare is not None:
        prepare[0](*prepare[1])
    _worker(_work, arguments, "cpu")


def records(output: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    path = output / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def last_iteration(output: Path) -> int:
    return max((record["iteration"] for record in records(output)), default=0)


def losses(output: Path) -> list[tuple[int, float, float]]:
    """(iteration, total loss, gradient norm) of every step."""
    return [(r["iteration"], r["total_loss"], r["grad_norm"]) for r in records(output) if "total_loss" in r]


def final_state(output: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint and of model_final.pth by name."""
    newest = max(output.glob("model_iter_*.pth"))
    return {**_tensors(torch.load(newest)), **_tensors(torch.load(output / "model_final.pth"), "final.")}


def differences(output: Path, reference: Path) -> list[str]:
    """What differs, in bits, between two finished runs: losses of any step, any tensor of the last checkpoint."""
    ours, theirs = final_state(output), final_state(reference)
    found = [f"tensors {sorted(ours.keys() ^ theirs.keys())}"] if ours.keys() != theirs.keys() else []
    found += [name for name in ours.keys() & theirs.keys() if not torch.equal(ours[name], theirs[name])]
    return found + ([] if losses(output) == losses(reference) else ["losses"])


def _tensors(value: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {name: t for key, item in items for name, t in _tensors(item, f"{prefix}/{key}").items()}
