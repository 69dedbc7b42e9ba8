"""A large training set, from its json to the first step: time and memory, with numbers of the size of LVIS v1 train.

    python benchmarks/annotations_load.py /tmp/lvis                      everything
    python benchmarks/annotations_load.py /tmp/lvis --only parse parts train
    python benchmarks/annotations_load.py /tmp/lvis --only workers       memory of 8 workers, beside lists of dicts

Writes benchmarks/annotations_load.json and .md; with --only the other figures stay as they were. The json files are
generated into the given folder when they are not there yet (1.1 GB, a minute or two).

Every figure is measured in a process of its own. `parse` is the first start with an empty cache. `parts` are the parts
of a later start that grow with the data set, one after the other. `train` is a later start as a user sees it, from the
command to the first recorded step, with the large set and with a thousandth of it. `workers` are forked, read the
annotations of every image once, and are measured while all are alive. PSS counts a page shared by n processes as 1/n of
a page in each; the anonymous part is what belongs to the process itself, the rest are file pages that the system can
drop. Lists of dicts (what json.load gives) need (workers + 1) x 4 x the size of the json: both get a smaller file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from annotations_generate import write, write_photos

T = TypeVar("T")
OUT = Path(__file__).with_suffix(".json")
SHARES = {"whole": 1.0, "part": 0.1, "tiny": 0.001}  # of LVIS v1 train

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.schema import DatasetFiles

files = DatasetFiles(annotations={json!r}, images={images!r})
config = override(
    DetectionConfig(),
    data=dict(train=files, test=files, sampler="repeat_factor", train_sizes=(64,), train_max_size=96, workers=2),
    schedule=dict(iters=2, batch_size=2),
    log_every=1,
    checkpoint_every=1000,
    picture_every=0,
)
"""

NET = """
import torch
from torch import nn

from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSoftmax


class Small(nn.Module):
    def __init__(self, counts):
        super().__init__()
        self.predictor = nn.Linear(3, len(counts) + 1)
        self.loss = BalancedSoftmax(counts)

    def forward(self, batch):
        means = torch.stack([image.float().mean((1, 2)) / 255 for image in batch.images])
        labels = torch.stack([target.labels[0] for target in batch.targets])
        return {"loss_cls": self.loss(self.predictor(means), labels)}


def build_model(cfg):
    return Small(class_counts(cfg.data, cfg.folder))
"""


# ---- what is measured, each in a fresh process ---------------------------------------------------------------------


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


def _files(path: Path):
    from cvpods_ext.config.schema import DatasetFiles

    return DatasetFiles(annotations=str(path), images=str(path.parent))


def load(path: Path):  # noqa: D103
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations import annotations

    return annotations.load(catalog.resolve(_files(path), "."))


def parse(path: Path) -> dict[str, float]:
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


def parts(path: Path) -> dict[str, float]:
    """Seconds of every part of a later start, in the order in which a run needs them."""
    import torch  # noqa: F401

    from cvpods_ext.config import override
    from cvpods_ext.config.detection import DetectionConfig
    from cvpods_ext.data import detection_loader, doctor, num_shots, statistics

    files = _files(path)
    config = override(DetectionConfig(), data=dict(train=files, test=files, sampler="repeat_factor"))
    data, seconds = config.data, {}

    def clocked(name: str, part: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = part()
        seconds[name] = time.perf_counter() - began
        return result

    clocked("class counts (num_shots)", lambda: num_shots.class_counts(data, "."))
    clocked("frequency groups", lambda: num_shots.frequency_groups(data, "."))
    annotations = clocked("open and check", lambda: detection_loader.load_checked(data, files, "."))
    positions = clocked("images with annotations", lambda: statistics.annotated_images(annotations))
    order = partial(detection_loader.batch_order, config, annotations, positions, rank=0, world_size=1)
    first = clocked("repeat factors, aspect groups", lambda: order(start_iteration=0))
    clocked("first batch of the first pass", lambda: next(iter(first)))
    clocked("first batch after 179,999 iterations", lambda: next(iter(order(start_iteration=179_999))))
    clocked("box centres (FRACAL only)", lambda: num_shots.box_centres(data, "."))
    clocked("pods_data doctor", lambda: list(doctor.examine(files, ".")))
    seconds["peak_rss_anon_mb"] = memory("RssAnon", "status")
    return seconds


def train(path: Path) -> dict[str, float]:
    """pods_train from the command to the record of the first step."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "config.py").write_text(CONFIG.format(json=str(path), images=str(path.parent)))
        (folder / "net.py").write_text(NET)
        line = [sys.executable, "-m", "cvpods_ext.cli.train", "--dir", str(folder), "--device", "cpu"]
        began = time.perf_counter()
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        metrics = folder / "outputs" / "metrics.jsonl"
        while not metrics.is_file() and process.poll() is None:
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(errors[-2000:])
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "cpu_seconds_of_two_steps": usage.ru_utime + usage.ru_stime}


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


# ---- running and writing ---------------------------------------------------------------------------------------------


def json_file(folder: Path, which: str) -> Path:
    """The generated json of a size, written if it is absent."""
    path = folder / f"{which}.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write(path.with_suffix(".part"), SHARES[which])
        write_photos(folder)
        path.with_suffix(".part").rename(path)
    return path.resolve()


def measured(measure: str, path: Path, workers: int, cache: Path) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, str(path), "--measure", measure, "--workers", str(workers)]
    output = subprocess.check_output(command, env={**os.environ, "PODS_CACHE": str(cache)}, text=True)
    print(measure, path.name, output.strip(), flush=True)
    return json.loads(output.splitlines()[-1])


def run(folder: Path, only: list[str], workers: int) -> dict[str, dict]:
    """The chosen measurements; caches are filled first where they are not what is measured."""
    cache, found = folder / "cache", {}
    cache.mkdir(parents=True, exist_ok=True)
    of = partial(measured, workers=workers, cache=cache)
    whole = json_file(folder, "whole")
    if "parse" in only:
        shutil.rmtree(cache)
        cache.mkdir()
        found["parse"] = {"json_mb": whole.stat().st_size / 1e6, **of("parse", whole)}
        found["parse"]["cache_mb"] = sum(file.stat().st_size for file in cache.iterdir()) / 1e6
    if "parts" in only:
        of("parse", whole)
        found["parts"] = of("parts", whole)
    if "train" in only:
        for which in ("whole", "tiny"):
            of("train", json_file(folder, which))  # fills caches, also the system's
            found[f"train, {which}"] = of("train", json_file(folder, which))
    if "workers" in only:
        part = json_file(folder, "part")
        of("parse", part)
        found["workers, whole"] = of("arrow", whole)
        found["workers, part"] = of("arrow", part)
        found["lists of dicts, part"] = of("lists", part)
    return found


def markdown(content: dict) -> str:
    """One table a measurement."""
    machine = content["machine"]
    lines = [
        "# A set of the size of LVIS v1 train",
        "",
        f"By `python benchmarks/annotations_load.py`; {machine['cores']} cores, {machine['system']}, "
        f'{content["workers"]} workers. What is measured is said at the top of that file; "part" is '
        f'{SHARES["part"]:g} of the set, "tiny" {SHARES["tiny"]:g}.',
    ]
    for name, row in content["figures"].items():
        lines += ["", f"## {name}", "", "| | |", "|---|---:|"]
        lines += [f"| {key} | {value:,.2f} |" for key, value in row.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, merge with what was measured before, write."""
    choices = ["parse", "parts", "train", "workers"]
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("folder", type=Path)
    flags.add_argument("--only", nargs="+", choices=choices, default=choices)
    flags.add_argument("--workers", type=int, default=8)
    flags.add_argument("--measure", choices=("parse", "parts", "train", "arrow", "lists"), help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.measure:
        by_name = {"parse": parse, "parts": parts, "train": train}
        with_workers = {"arrow": arrow, "lists": lists}
        name, path = arguments.measure, arguments.folder
        row = by_name[name](path) if name in by_name else with_workers[name](path, arguments.workers)
        print(json.dumps({key: round(value, 3) for key, value in row.items()}))
        return
    before = json.loads(OUT.read_text())["figures"] if OUT.is_file() else {}
    found = run(arguments.folder, arguments.only, arguments.workers)
    machine = {"cores": os.cpu_count(), "system": platform.platform()}
    content = {"machine": machine, "workers": arguments.workers, "figures": {**before, **found}}
    OUT.write_text(json.dumps(content, indent=2) + "\n")
    OUT.with_suffix(".md").write_text(markdown(content))


if __name__ == "__main__":
    main()
