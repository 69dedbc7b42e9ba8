"""Time and memory of evaluation at LVIS v1 val scale, ours against hotcoco and the official package.

Each measurement runs in a process of its own. Wall time depends on what else the machine does, so CPU time (of all
processes) is printed beside it. "first" parses and rasterises the json; "again" finds that in the cache; the match
table is made anew in both. The official package runs at 1/20 only: at full scale it needs over ten minutes and 20 GB.

Run:  python benchmarks/evaluation_speed.py FOLDER [--scales 0.05 0.2 1] > benchmarks/evaluation_speed.md
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from evaluation_load import generate

from cvpods_ext.evaluation.evaluate import evaluate


def measure(folder: Path, task: str, evaluator: str, workers: int) -> dict[str, float]:
    """Evaluate once in this process; seconds, gigabytes and the AP."""
    for kept in (folder / "shards").glob("matches-*"):
        kept.unlink()
    began = time.perf_counter()
    result = evaluate(folder / "annotations.json", folder / "shards", (task,), evaluator=evaluator, workers=workers)
    wall = time.perf_counter() - began
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "wall": wall,
        "cpu": sum(u.ru_utime + u.ru_stime for u in usage),
        "rss": usage[0].ru_maxrss / 1e6,
        "rss_child": usage[1].ru_maxrss / 1e6,
        "AP": result[task]["AP"] or 0.0,
    }


def in_process(folder: Path, task: str, evaluator: str, workers: int) -> dict[str, float]:
    """`measure` in a fresh interpreter."""
    command = [sys.executable, __file__, "--one", str(folder), task, evaluator, str(workers)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def row(scale: float, task: str, label: str, result: dict[str, float]) -> str:
    """A line of the table; memory is of the parent and of its largest child."""
    memory = f"{result['rss']:.2f}" + (f" + {result['rss_child']:.2f}" if result["rss_child"] else "")
    return (
        f"| {scale:g} | {task} | {label} | {result['wall']:.1f} | {result['cpu']:.1f} | {memory} | {result['AP']:.9f} |"
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.05, 0.2, 1.0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--own-only", action="store_true", help="leave out the other evaluators, which take more memory"
    )
    arguments = parser.parse_args()
    print("| scale | task | evaluator | wall s | CPU s | peak GB | AP |\n|---:|---|---|---:|---:|---:|---:|")
    for scale in arguments.scales:
        folder = arguments.folder / f"{scale:g}"
        generate(folder, scale)
        for task in ("bbox", "segm"):
            shutil.rmtree(folder / ".cache", ignore_errors=True)
            runs = [("own, first", "own", 1), ("own, again", "own", 1)]
            runs += [(f"own, {arguments.workers} processes", "own", arguments.workers)]
            if not arguments.own_only:
                runs += [("hotcoco", "hotcoco", 1)] + [("official", "lvis", 1)] * (scale <= 0.05)
            results = {}
            for label, evaluator, workers in runs:
                results[label] = in_process(folder, task, evaluator, workers)
                print(row(scale, task, label, results[label]), flush=True)
            if "official" in results:
                ratio = results["official"]["cpu"] / results["own, again"]["cpu"]
                print(f"\nOfficial / own at {scale:g}, {task}: {ratio:.0f} x in CPU time.\n", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        place, task_name, name, count = sys.argv[2:]
        print(json.dumps(measure(Path(place), task_name, name, int(count))))
    else:
        main()
