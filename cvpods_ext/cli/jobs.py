"""Our commands run one after another or side by side, as a user would."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cvpods_ext.errors import TrainingError
from cvpods_ext.runtime.progress import track

logger = logging.getLogger(__name__)

Step = tuple[str, ...]  # a command without pods_, and its arguments


@dataclass(frozen=True)
class Job:
    """Commands for one output folder; `after` is the name of a job that must be done first, if it is among them."""

    name: str
    output: Path
    steps: tuple[Step, ...]
    after: str = ""


def run(jobs: Sequence[Job], at_once: int, finished: Callable[[Job], None]) -> None:
    """Work through the jobs in their order, `at_once` at a time, and call `finished` after each.

    With several at once they share the processors, and what they print goes to a console.txt in each output folder;
    TrainingError if one fails. A job that others wait for stands before them.
    """
    if at_once > 1:
        _side_by_side(jobs, at_once, finished)
        return
    for job in jobs:
        for name, *arguments in job.steps:
            command(name, *arguments)
        finished(job)


def command(name: str, *arguments: str) -> None:
    """Run one of our commands, showing it first; its exit status becomes that of this process if it fails."""
    print(f"\n$ pods_{name} {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-c", _code(name), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _code(name: str) -> str:
    return f"from cvpods_ext.cli.{name} import main; main()"


def _side_by_side(jobs: Sequence[Job], at_once: int, finished: Callable[[Job], None]) -> None:
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // at_once))
    pending: dict[str, Future[None]] = {}
    with ThreadPoolExecutor(at_once) as pool:
        for job in jobs:
            # A first stage was handed in before, so it runs or has run, and waiting for it always ends.
            pending[job.name] = pool.submit(_quietly, job, pending.get(job.after))
        by_future = {pending[job.name]: job for job in jobs}
        for done in track(as_completed(by_future), "experiments", total=len(by_future)):
            if error := done.exception():
                pool.shutdown(cancel_futures=True)
                raise error
            finished(by_future[done])
            logger.info("finished %s", by_future[done].name)


def _quietly(job: Job, before: Future[None] | None) -> None:
    """Run the commands of a job, their output in a file."""
    if before is not None:
        before.result()
    job.output.mkdir(parents=True, exist_ok=True)
    console = job.output / "console.txt"
    with open(console, "a", encoding="utf-8") as file:
        for name, *arguments in job.steps:
            file.write(f"$ pods_{name} {shlex.join(arguments)}\n")
            file.flush()
            done = subprocess.run(
                [sys.executable, "-c", _code(name), *arguments], check=False, stdout=file, stderr=subprocess.STDOUT
            )
            if done.returncode:
                raise TrainingError(f"pods_{name} failed for {job.name}: see {console}")
