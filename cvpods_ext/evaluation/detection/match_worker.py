"""A process that matches a share of the shards: work comes pickled on stdin, candidates leave pickled on stdout.

Plain subprocesses instead of `multiprocessing`: forking is unsafe beside threads and CUDA, and spawning would import
the caller's main script again, which fails for scripts without a main guard.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cvpods_ext.errors import UserError
from cvpods_ext.evaluation.detection.match_shards import match_share


def run_shares(shares: Sequence[tuple[Any, ...]]) -> list[Any]:
    """`match_share(*share)` of every share, each in a process of its own, results concatenated in order."""
    with ThreadPoolExecutor(len(shares)) as pool:
        return [part for parts in pool.map(_run, shares) for part in parts]


def _run(share: tuple[Any, ...]) -> list[Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "cvpods_ext.evaluation.detection.match_worker"],
        input=pickle.dumps(share),
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    result = pickle.loads(done.stdout)
    if isinstance(result, UserError):
        raise result
    return result


def main() -> None:
    """Do one share; an error that is meant for the user travels back instead of a traceback."""
    share = pickle.load(sys.stdin.buffer)
    try:
        result: Any = match_share(*share)
    except UserError as error:
        result = error
    pickle.dump(result, sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
