"""Inject every fault of the suite and write what became of the runs to benchmarks/faults.json.

python benchmarks/engine_faults.py [--kills 20]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))


def main() -> None:
    """Run all scenarios; exit status 1 if any run differs from its undisturbed twin."""
    import scenarios
    import torch
    from workshop import Workshop

    from cvpods_ext.runtime.environment import commit
    from cvpods_ext.runtime.files import write_json

    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--kills", type=int, default=20, help="random kills, half on one process, half on two")
    flags.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "faults.json")
    arguments = flags.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="pods-faults-") as folder:
        shop = Workshop(Path(folder))
        for scenario in _scenarios(scenarios, arguments.kills):
            started = time.monotonic()
            try:
                row = scenario(shop).as_row()
            except Exception as error:  # one failure must not hide the other rows
                name = getattr(scenario, "func", scenario).__name__
                row = {"fault": name, "bit_equal": False, "happened": repr(error)}
            rows.append({**row, "seconds": round(time.monotonic() - started, 1)})
            print(json.dumps(rows[-1])[:300], flush=True)
            machine = {"cores": os.cpu_count(), "system": platform.platform(), "torch": torch.__version__}
            write_json(arguments.out, {"commit": commit(), "machine": machine, "rows": rows})
    print(f"{sum(row['bit_equal'] for row in rows)} of {len(rows)} faults: nothing differs from an undisturbed run")
    sys.exit(not all(row["bit_equal"] for row in rows))


def _scenarios(scenarios, kills: int) -> list:
    at = scenarios.killed_at_a_step
    moments = ("in the file", "before the index", "before the end")
    writing = [partial(scenarios.killed_in_a_write, moment=moment) for moment in moments]
    return [
        partial(at, iteration=2),
        partial(at, iteration=7),
        partial(at, iteration=6, ranks=2),
        partial(at, iteration=6, ranks=4),
        *writing,
        scenarios.one_rank_killed,
        partial(scenarios.terminated, ranks=1),
        partial(scenarios.terminated, ranks=2),
        scenarios.full_disk,
        scenarios.truncated_checkpoint,
        scenarios.corrupt_image,
        scenarios.corrupt_annotation,
        scenarios.reader_killed,
        partial(scenarios.nan_injected, ranks=1),
        partial(scenarios.nan_injected, ranks=2),
        scenarios.restarted_by_itself,
        *(partial(scenarios.launcher_ended, number=n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)),
        partial(scenarios.random_kills, kills=kills - kills // 2, ranks=1, seed=1),
        partial(scenarios.random_kills, kills=kills // 2, ranks=2, seed=2),
    ]


if __name__ == "__main__":
    main()
