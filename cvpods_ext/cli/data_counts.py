"""pods_data num-shots and stats: how often each class occurs, and what samplers make of it."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import output_console
from cvpods_ext.cli.data_sets import DATASET_HELP, load_annotations
from cvpods_ext.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from cvpods_ext.data.annotations.annotations import Annotations
    from cvpods_ext.data.statistics import Pairs


def add_num_shots(commands: argparse._SubParsersAction) -> None:
    """Add `pods_data num-shots`."""
    shots = commands.add_parser("num-shots", help="write the class counts of a training set to a file")
    shots.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    shots.add_argument(
        "--count", choices=("image", "instance"), default="image", help="what is counted (default: image)"
    )
    shots.add_argument("--out", required=True, metavar="FILE", help=".json (id, count, id, count, ...) or .npy (array)")
    shots.add_argument("--force", action="store_true", help="overwrite FILE")
    shots.set_defaults(run=_num_shots)


def _num_shots(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import num_shots, statistics
    from cvpods_ext.runtime.outputs import check_output_file

    out = Path(arguments.out)
    check_output_file("--out", out, (".npy", ".json"), reads=(arguments.dataset,))
    if out.exists() and not arguments.force:
        raise ConfigError(f"{out} exists; pass --force to overwrite it")
    annotations = load_annotations(arguments.dataset)
    counts = statistics.count_classes(annotations, arguments.count)
    origin = {
        "count": f"{arguments.count}s per class",
        "annotations": annotations.paths.annotations.name,
        "annotations_sha256": annotations.facts["sha256"],
        "num_classes": annotations.num_classes,
    }
    num_shots.write(out, counts, annotations.category_ids, origin)
    empty = int((counts == 0).sum())
    output_console().print(
        f"{out}: {arguments.count}s per class for {len(counts)} classes, {counts.min()} to {counts.max()}, from "
        f"{annotations.paths.annotations}" + (f"; {empty} classes have none and cannot be weighted" if empty else ""),
        markup=False,
    )


def add_stats(commands: argparse._SubParsersAction) -> None:
    """Add `pods_data stats`."""
    stats = commands.add_parser("stats", help="the long tail, and repeat factors of every class")
    stats.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    stats.add_argument(
        "--threshold", type=float, default=0.001, metavar="T", help="data.repeat_threshold (default: 0.001)"
    )
    stats.add_argument("--csv", metavar="FILE", help="write counts and factors of every class")
    stats.set_defaults(run=_stats)


def _stats(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import statistics
    from cvpods_ext.runtime.outputs import check_output_file

    check_output_file("--csv", arguments.csv, (".csv",), reads=(arguments.dataset,))
    annotations = load_annotations(arguments.dataset)
    pairs = statistics.pairs(annotations, statistics.annotated_images(annotations))
    images, instances = pairs.counts("image"), pairs.counts("instance")
    threshold = arguments.threshold
    factors = {
        "RFS": statistics.repeat_factors(images, pairs.num_images, threshold),
        "IRFS": statistics.instance_repeat_factors(images, instances, pairs.num_images, threshold),
    }
    groups = _groups(annotations, images)
    out = output_console()
    out.print(
        f"{annotations.paths.name}: {pairs.num_images:,} images with annotations, {instances.sum():,} instances, "
        f"{len(pairs.label):,} (image, class) pairs; Gini of images {statistics.gini(images):.3f}, "
        f"of instances {statistics.gini(instances):.3f}"
    )
    out.print(_group_table(groups, images, instances, factors))
    out.print(_sampler_table(pairs, factors, groups, threshold))
    out.print("Counts behind the factors are images with the class (RFS), and images and instances (IRFS).")
    if arguments.csv:
        _write_factors(Path(arguments.csv), annotations, groups, images, instances, factors)
        out.print(f"wrote {arguments.csv}", markup=False)


def _groups(annotations: Annotations, images: np.ndarray) -> np.ndarray:
    """ "r", "c" or "f" for each class: the json's own word where it has one."""
    import numpy as np

    from cvpods_ext.data import statistics

    stated = np.array([category.frequency for category in annotations.categories])
    return stated if (stated != "").all() else statistics.groups_by_count(images)


def _group_table(groups: np.ndarray, images: np.ndarray, instances: np.ndarray, factors: dict[str, np.ndarray]):
    from rich.table import Table

    table = Table("group", box=None)
    for heading in ("classes", "with no image", "images, median", "share of instances", "RFS r, mean", "IRFS r, mean"):
        table.add_column(heading, justify="right")
    for group, word in (("r", "rare"), ("c", "common"), ("f", "frequent")):
        member = groups == group
        if not member.any():
            continue
        table.add_row(
            word,
            str(member.sum()),
            str((images[member] == 0).sum()),
            f"{sorted(images[member])[member.sum() // 2]:,}",
            f"{instances[member].sum() / max(instances.sum(), 1):.2%}",
            *(f"{values[member].mean():.2f}" for values in factors.values()),
        )
    return table


def _sampler_table(pairs: Pairs, factors: dict[str, np.ndarray], groups: np.ndarray, threshold: float):
    """How much longer a pass gets, and how much more often the classes of each group are seen."""
    import numpy as np
    from rich.table import Table

    from cvpods_ext.data import statistics

    table = Table(f"sampler (t = {threshold:g})", box=None)
    for heading in (
        "images per pass",
        "expansion",
        "images repeated",
        "largest r",
        "classes with r > 1",
        "r/c/f seen more often",
    ):
        table.add_column(heading, justify="right")
    for name, values in factors.items():
        per_image = statistics.image_repeat_factors(pairs, values)
        gains = []
        for group in "rcf":
            member = groups[pairs.label] == group
            gains.append(f"{per_image[pairs.image[member]].mean():.2f}" if member.any() else "-")
        table.add_row(
            name,
            f"{per_image.sum(dtype=np.float64):,.0f}",
            f"{per_image.mean(dtype=np.float64):.3f}",
            f"{(per_image > 1).sum():,}",
            f"{per_image.max():.2f}",
            str((values > 1).sum()),
            " / ".join(gains),
        )
    return table


def _write_factors(
    path: Path,
    annotations: Annotations,
    groups: np.ndarray,
    images: np.ndarray,
    instances: np.ndarray,
    factors: dict[str, np.ndarray],
) -> None:
    from cvpods_ext.runtime.files import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "name", "group", "images", "instances", "rfs", "irfs"))
        for label, category in enumerate(annotations.categories):
            rounded = [f"{values[label]:.6g}" for values in factors.values()]
            writer.writerow((category.id, category.name, groups[label], images[label], instances[label], *rounded))
