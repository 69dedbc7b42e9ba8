"""Read files of strangers in a process of its own: what came of each, how much memory and time it took."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CHILD = """
import importlib, json, resource, sys, time, traceback
from cvpods_ext.errors import UserError

module, name = sys.argv[1].split(":")
read = getattr(importlib.import_module(module), name)

def status(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) << 10

limit = status("VmSize:") + (2 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for line in sys.stdin:
    path = json.loads(line)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before, began = status("VmRSS:"), time.monotonic()
    try:
        kind, message = "read", repr(read(path))[:1000]
    except UserError as error:
        kind, message = "refused", str(error)
    except BaseException as error:
        kind, message = "broken", "".join(traceback.format_exception(error))[-2000:]
    print(json.dumps([path, kind, message, status("VmHWM:") - before, time.monotonic() - began]), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """`kind` is "read", "refused" (a UserError) or "broken" (any other exception, or the end of the process)."""

    path: str
    kind: str
    message: str
    peak_bytes: int
    seconds: float


def outcomes(function: str, paths: Iterable[Path | str]) -> list[Outcome]:
    """Call `function` ("module:name") with each path in one process that may use 2 GiB more than its imports."""
    paths = [str(path) for path in paths]
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, function],
        input="".join(json.dumps(path) + "\n" for path in paths),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30 + 20 * len(paths),
        check=False,
    )
    found = [Outcome(*json.loads(line)) for line in run.stdout.splitlines() if line.startswith("[")]
    if len(found) < len(paths):
        found.append(Outcome(paths[len(found)], "broken", f"status {run.returncode}: {run.stderr[-1500:]}", 0, 0.0))
    return found
