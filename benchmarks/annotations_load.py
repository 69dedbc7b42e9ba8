"""Time and memory of a large annotation file: first parse, later start, and what each extra worker costs.

    python benchmarks/annotations_generate.py /tmp/big.json
    python benchmarks/annotations_load.py /tmp/big.json --workers 8
    python benchmarks/annotations_load.py /tmp/fifth.json --workers 8 --lists     beside plain lists of dicts

Every line is measured in a process of its own. Workers are forked, read the annotations of every image once, and are
measured while all of them are alive. PSS counts a page shared by n processes as 1/n of a page in each of them; the
anonymous part is what belongs to the process itself, the rest are file pages that the system can drop.
With --lists the same is done to what json.load gives, which every worker copies page by page as it touches
reference counts. It needs about (workers + 1) x 4 x the size of the json in memory: use a file that fits.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path


def memory(kind: str, file: str = "smaps_rollup") -> float:
    """One entry of /proc/self in MB."""
    text = Path(f"/proc/self/{file}").read_text()
    return int(re.findall(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE)[0]) / 1024


class PeakAnonymous(threading.Thread):
    """Samples the memory that belongs to this process alone, ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0

    def run(self) -> None:
        """Sample until the process ends."""
        while True:
            self.peak = max(self.peak, memory("RssAnon", "status"))
            time.sleep(0.1)


def load(path: Path):  # noqa: D103
    from cvpods_ext.config.schema import DatasetFiles
    from cvpods_ext.data import annotations, catalog

    return annotations.load(catalog.resolve(DatasetFiles(annotations=str(path.resolve()), images="/"), "."))


def parse(path: Path, workers: int) -> dict[str, float]:
    """The first start, with an empty cache."""
    peak = PeakAnonymous()
    peak.start()
    began, cpu = time.perf_counter(), time.process_time()
    load(path)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_rss_anon_mb": peak.peak,
        "peak_rss_mb": memory("VmHWM", "status"),
    }


def start(path: Path, workers: int) -> dict[str, float]:
    """A later start: open the cache, count classes, compute the repeat factor of every image."""
    began = time.perf_counter()
    import torch  # noqa: F401

    from cvpods_ext.data import statistics

    imported = time.perf_counter()
    annotations = load(path)
    opened = time.perf_counter()
    pairs = statistics.pairs(annotations, statistics.annotated_images(annotations))
    factors = statistics.repeat_factors(pairs.counts(), pairs.num_images, 0.001)
    statistics.image_repeat_factors(pairs, factors)
    return {
        "import_seconds": imported - began,
        "open_seconds": opened - imported,
        "repeat_factors_seconds": time.perf_counter() - opened,
        "peak_rss_anon_mb": memory("RssAnon", "status"),
    }


def arrow(path: Path, workers: int) -> dict[str, float]:
    """Workers over the memory-mapped cache."""
    annotations = load(path)
    count = len(annotations.index.label)  # as the sampler of the parent does before workers are forked

    def read() -> int:
        return sum(len(annotations.instances(position)) for position in range(len(annotations)))

    return _in_workers(read, count, workers)


def lists(path: Path, workers: int) -> dict[str, float]:
    """Workers over lists of dicts, grouped by image."""
    content = json.loads(path.read_text())
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    count = len(content["annotations"])

    def read() -> int:
        seen = 0
        for image in content["images"]:
            for annotation in by_image[image["id"]]:
                sum(annotation["bbox"])
                for polygon in annotation["segmentation"]:
                    sum(polygon)
                seen += 1
        return seen

    return _in_workers(read, count, workers)


def _in_workers(read: Callable[[], int], expected: int, workers: int) -> dict[str, float]:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(workers + 1), context.Queue()

    def work() -> None:
        began = time.perf_counter()
        assert read() == expected, "a worker has not seen every annotation"
        seconds = time.perf_counter() - began
        barrier.wait()
        results.put((memory("Pss"), memory("Pss_Anon"), seconds))
        barrier.wait()  # nobody leaves before all are measured

    before = memory("Pss_Anon")
    processes = [context.Process(target=work) for _ in range(workers)]
    for process in processes:
        process.start()
    barrier.wait()
    measured = [results.get() for _ in processes]
    total = memory("Pss") + sum(pss for pss, _, _ in measured)
    barrier.wait()
    for process in processes:
        process.join()
    return {
        "parent_anon_mb_before": before,
        "worker_pss_mb": max(pss for pss, _, _ in measured),
        "worker_anon_mb": max(anonymous for _, anonymous, _ in measured),
        "all_processes_pss_mb": total,
        "worker_read_seconds": max(seconds for _, _, seconds in measured),
    }


def main() -> None:
    """Run each measurement in a fresh process and print one line of JSON for each."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("json", type=Path)
    flags.add_argument("--workers", type=int, default=8)
    flags.add_argument("--lists", action="store_true", help="measure lists of dicts as well")
    flags.add_argument("--only", choices=("parse", "start", "arrow", "lists"), help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.only:
        measure = {"parse": parse, "start": start, "arrow": arrow, "lists": lists}[arguments.only]
        print(json.dumps({key: round(value, 2) for key, value in measure(arguments.json, arguments.workers).items()}))
        return
    print(f"{arguments.json}: {arguments.json.stat().st_size / 1e6:.0f} MB, {arguments.workers} workers")
    with tempfile.TemporaryDirectory(dir=arguments.json.parent) as cache:
        environment = {**os.environ, "PODS_CACHE": cache}
        for name in ("parse", "start", "arrow", *(("lists",) if arguments.lists else ())):
            command = [
                sys.executable,
                __file__,
                str(arguments.json),
                "--workers",
                str(arguments.workers),
                "--only",
                name,
            ]
            print(name, subprocess.check_output(command, env=environment, text=True).strip(), flush=True)
        print("cache", round(sum(file.stat().st_size for file in Path(cache).iterdir()) / 1e6), "MB")


if __name__ == "__main__":
    main()
