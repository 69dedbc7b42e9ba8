"""Time and memory of evaluation at LVIS v1 val scale, ours against hotcoco and the official package.

Each measurement runs in a process of its own. Wall time depends on what else the machine does, so CPU time (of all
processes) is printed beside it. "first" parses and rasterises the json; "again" finds that in the cache; "prepared"
is what remains after the last image of a test whose shards were overlapped while it ran; the match table is made anew
in all of them. Error kinds, 1,000 bootstrap resamples and the error examples of a page (800 without their pictures)
start from the kept table. The official package runs at 1/20 only: at full scale it needs ten minutes and 20 GB.

Run:  python benchmarks/evaluation_speed.py FOLDER --scales 0.05 0.2 1 --out benchmarks/evaluation_speed.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
from evaluation_load import generate

from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.background_eval import counted_annotations, prepare
from cvpods_ext.evaluation.detection.bootstrap import resampled_aps
from cvpods_ext.evaluation.detection.evaluate import Evaluator, evaluate
from cvpods_ext.evaluation.detection.families import metrics_of
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.evaluation.detection.selection import LVIS_LIMIT, select_annotations
from cvpods_ext.evaluation.detection.shards import shard_files
from cvpods_ext.evaluation.detection.significance import draws_for
from cvpods_ext.evaluation.detection.tide import classify, costs
from cvpods_ext.report.detection.error_examples import MatchedRun, error_examples, example_counts

OFFICIAL_SCALE = 0.05
EXAMPLES, PER_KIND = 800, 3
HEAD = "| scale | task | what | wall s | CPU s | peak GB | AP |\n|---:|---|---|---:|---:|---:|---:|"


def measured(body: Callable[[], float | None]) -> dict[str, float | None]:
    """Seconds and gigabytes of `body`, which returns an AP or None. Memory includes what was there before."""
    cpu, began = _cpu(), time.perf_counter()
    ap = body()
    wall = time.perf_counter() - began
    memory = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"wall": wall, "cpu": _cpu() - cpu, "rss": memory[0], "rss_child": memory[1], "AP": ap}


def _cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def evaluated(folder: Path, task: str, evaluator: Evaluator, workers: int) -> dict[str, float | None]:
    """Shards to metrics."""
    _forget(folder)
    paths = folder / "annotations.json", folder / "shards"
    return measured(lambda: evaluate(*paths, (task,), evaluator=evaluator, workers=workers)[task]["AP"])


def prepared(folder: Path, task: str, workers: int) -> dict[str, float | None]:
    """The rest of an evaluation that ran beside the test."""
    _forget(folder)
    counted = counted_annotations(ground_truth.load(folder / "annotations.json", masks=needs_masks(task)), (task,))
    for shard in shard_files(folder / "shards"):
        prepare(counted, shard, max_detections=300)
    return in_process("evaluate-prepared", folder, task, "own", workers)


def _evaluated_as_it_is(folder: Path, task: str, workers: int) -> dict[str, float | None]:
    paths = folder / "annotations.json", folder / "shards"
    return measured(lambda: evaluate(*paths, (task,), workers=workers)[task]["AP"])


def from_the_table(folder: Path, task: str, what: str) -> dict[str, float | None]:
    """What starts from the kept match table."""
    gt = ground_truth.load(folder / "annotations.json", masks=needs_masks(task))
    table = match_table(gt, folder / "shards", task, LVIS_LIMIT)
    counted = select_annotations(gt, task)

    def body() -> float | None:
        if what == "resamples":
            resampled_aps(table, draws_for(table).images)
        elif what == "errors":
            costs(table, classify(counted, folder / "shards", table, task))
        else:
            matched = MatchedRun(counted, folder / "shards", table, task)
            within = np.flatnonzero(np.cumsum(example_counts(matched, PER_KIND)) <= EXAMPLES)
            error_examples(matched, within.tolist(), PER_KIND)
        return None

    result = measured(body)
    return {**result, "AP": metrics_of(table, gt.federated)["AP"]}


def _forget(folder: Path) -> None:
    for pattern in ("matches-*", "overlaps-*"):
        for kept in (folder / "shards").glob(pattern):
            kept.unlink()


def in_process(*arguments: object) -> dict[str, float | None]:
    """One measurement in a fresh interpreter."""
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def one(kind: str, place: str, task: str, name: str, workers: str) -> dict[str, float | None]:
    """What `in_process` asks for."""
    folder = Path(place)
    if kind == "evaluate":
        return evaluated(folder, task, cast(Evaluator, name), int(workers))
    if kind == "evaluate-prepared":
        return _evaluated_as_it_is(folder, task, int(workers))
    return prepared(folder, task, int(workers)) if kind == "prepared" else from_the_table(folder, task, name)


def row(scale: float, task: str, label: str, result: dict[str, float | None]) -> str:
    """A line of the table; memory is of the parent and of its largest child."""
    memory = f"{result['rss']:.2f}" + (f" + {result['rss_child']:.2f}" if result["rss_child"] else "")
    return (
        f"| {scale:g} | {task} | {label} | {result['wall']:.1f} | {result['cpu']:.1f} | {memory} | {result['AP']:.9f} |"
    )


def runs(scale: float, task: str, workers: int, own_only: bool) -> list[tuple[str, tuple[str, str, int]]]:
    """Label and arguments of every measurement; the first one finds no cache, the last ones a kept table."""
    several = f"own, {workers} workers"
    if task == "boundary":
        return [("own, again", ("evaluate", "own", 1)), (several, ("evaluate", "own", workers))]
    found = [("own, first", ("evaluate", "own", 1)), ("own, again", ("evaluate", "own", 1))]
    if not own_only:
        found += [("hotcoco", ("evaluate", "hotcoco", 1))]
        found += [("official", ("evaluate", "lvis", 1))] * (scale <= OFFICIAL_SCALE)
    found += [(several, ("evaluate", "own", workers)), ("own, prepared", ("prepared", "own", workers))]
    found += [
        ("error kinds and costs", ("table", "errors", 1)),
        ("1,000 resamples", ("table", "resamples", 1)),
        ("error examples of a page", ("table", "examples", 1)),
    ]
    return found


def main() -> None:
    """Print a Markdown table, and write it to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.05, 0.2, 1.0])
    parser.add_argument("--tasks", nargs="+", default=["bbox", "segm", "boundary"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--own-only", action="store_true", help="without other evaluators, which take more memory")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        f"Written by `python benchmarks/evaluation_speed.py {' '.join(sys.argv[2:])}` on {os.cpu_count()} cores "
        f"({platform.machine()}), load average {os.getloadavg()[0]:.1f} at the start. Scale 1 is LVIS v1 val: "
        "19,809 images, 5.9 million detections.\n",
        HEAD,
    ]
    print("\n".join(lines), flush=True)
    for scale in arguments.scales:
        folder = arguments.folder / f"{scale:g}"
        generate(folder, scale)
        for task in arguments.tasks:
            if task != "boundary":
                shutil.rmtree(folder / ".cache", ignore_errors=True)
            results = {}
            for label, (kind, name, workers) in runs(scale, task, arguments.workers, arguments.own_only):
                results[label] = in_process(kind, folder, task, name, workers)
                lines.append(row(scale, task, label, results[label]))
                print(lines[-1], flush=True)
            if "official" in results:
                ratio = results["official"]["cpu"] / results["own, again"]["cpu"]
                lines.append(f"\nOfficial / own at {scale:g}, {task}: {ratio:.0f} x in CPU time.\n\n{HEAD}")
                print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:])))
    else:
        main()
