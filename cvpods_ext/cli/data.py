"""pods_data: check data sets, count classes, look at the long tail, make a synthetic set. Help imports no torch."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from cvpods_ext.config.experiment import Experiment
    from cvpods_ext.config.schema import DatasetFiles
    from cvpods_ext.data.annotations.annotations import Annotations
    from cvpods_ext.data.findings import Finding
    from cvpods_ext.data.statistics import Pairs

EXAMPLES = """\
  pods_data doctor                                      all that this experiment needs; elsewhere: all known sets
  pods_data doctor lvis_v1_train --decode               one data set, every image decoded
  pods_data doctor my_train.json --images my_images     data of your own in COCO or LVIS layout
  pods_data num-shots my_train.json --out num_shots.json
                                                        class counts for losses and calibration (data.num_shots=...)
  pods_data stats lvis_v1_train --threshold 0.001       the long tail, and what repeat-factor sampling makes of it
  pods_data label-maps my.json --out label_maps         masks as label maps, for semantic segmentation
  pods_data synth datasets --num-classes 40             a small long-tailed set to try everything on
  pods_data synth flat --spread 0 --min-images 20       the same classes, equally frequent

a data set is one of: lvis_v1_train lvis_v1_val lvis_v0.5_train lvis_v0.5_val coco_2017_train coco_2017_val,
or the path of a json file. Data sets are looked for in $PODS_DATASETS, else in ./datasets here or above."""

_DATASET_HELP = "name of a data set, or a json file"
_MARKS = {"ok": "[green]ok[/]", "note": "[cyan]note[/]", "problem": "[red]problem[/]"}


def main() -> None:
    """Entry point of pods_data."""
    flags = parser("pods_data", "Check, count and make data sets.", EXAMPLES)
    commands = flags.add_subparsers(
        dest="command", required=True, metavar="doctor | num-shots | stats | label-maps | synth"
    )
    _add_doctor(commands)
    _add_num_shots(commands)
    _add_stats(commands)
    _add_label_maps(commands)
    _add_synth(commands)
    arguments = flags.parse_args()
    guarded("pods_data", lambda: arguments.run(arguments))


def _dataset(text: str, images: str) -> str | DatasetFiles:
    """A name of the catalog, or a json of the user's with its image folder (default: the json's own folder)."""
    if not text.endswith((".json", ".json.gz")):
        return text
    from cvpods_ext.config.schema import DatasetFiles

    annotations = Path(text).resolve()
    return DatasetFiles(
        annotations=str(annotations), images=str(Path(images).resolve() if images else annotations.parent)
    )


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


# ---- doctor ---------------------------------------------------------------------------------------------------------


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    doctor = commands.add_parser("doctor", help="what is present, missing or broken, and where to get it")
    doctor.add_argument("datasets", nargs="*", metavar="DATASET", help=_DATASET_HELP)
    doctor.add_argument("--images", default="", metavar="FOLDER", help="where the image paths of a json start")
    doctor.add_argument("--dir", default=".", help="experiment folder, or where to start looking for datasets/")
    doctor.add_argument("--decode", action="store_true", help="also decode every image")
    doctor.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import catalog, doctor

    start = Path(arguments.dir)
    findings: list[Finding] = []
    if arguments.datasets or not (start / "config.py").is_file():
        chosen = [_dataset(text, arguments.images) for text in arguments.datasets] or list(catalog.KNOWN)
        for dataset in chosen:
            findings += doctor.examine(dataset, start)
    else:
        from cvpods_ext.config.experiment import load_experiment
        from cvpods_ext.tasks.task import find

        experiment = load_experiment(start)
        chosen = []
        findings += find(experiment.config.task).examine(experiment, arguments.decode)
        findings += _weights(experiment)
    if arguments.decode and not _problems(findings):
        for dataset in chosen:
            findings += doctor.examine_pixels(dataset, start)
    findings = list(dict.fromkeys(findings))  # data sets share files
    _show_findings(findings)
    if _problems(findings):
        sys.exit(1)


def _weights(experiment: Experiment) -> list[Finding]:
    """Whether the weights that training starts from are there."""
    from cvpods_ext.data.findings import Finding
    from cvpods_ext.modeling.weights.locate import locate

    init = experiment.config.model.init
    try:
        path = locate(init, experiment.folder)
    except WeightsError as error:
        return [Finding("problem", "model.init", str(error))]
    return [Finding("ok", "model.init", f"{init} is {path}")] if path else []


def _problems(findings: Iterable[Finding]) -> int:
    return sum(finding.level == "problem" for finding in findings)


def _show_findings(findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for heading in ("", "data set", "finding"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        remedy = f"\n[bold]->[/] {escape(finding.remedy)}" if finding.remedy else ""
        table.add_row(_MARKS[finding.level], escape(finding.subject), escape(finding.text) + remedy)
    out = _console()
    out.print(table)
    problems = _problems(findings)
    out.print(f"problems: {problems}" if problems else "nothing is missing")


# ---- num-shots ------------------------------------------------------------------------------------------------------


def _add_num_shots(commands: argparse._SubParsersAction) -> None:
    shots = commands.add_parser("num-shots", help="write the class counts of a training set to a file")
    shots.add_argument("dataset", metavar="DATASET", help=_DATASET_HELP)
    shots.add_argument(
        "--count", choices=("image", "instance"), default="image", help="what is counted (default: image)"
    )
    shots.add_argument("--out", required=True, metavar="FILE", help=".json (id, count, id, count, ...) or .npy (array)")
    shots.add_argument("--force", action="store_true", help="overwrite FILE")
    shots.set_defaults(run=_num_shots)


def _num_shots(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import num_shots, statistics

    out = Path(arguments.out)
    if out.exists() and not arguments.force:
        raise ConfigError(f"{out} exists; pass --force to overwrite it")
    annotations = _load(arguments.dataset)
    counts = statistics.count_classes(annotations, arguments.count)
    origin = {
        "count": f"{arguments.count}s per class",
        "annotations": annotations.paths.annotations.name,
        "annotations_sha256": annotations.facts["sha256"],
        "num_classes": annotations.num_classes,
    }
    num_shots.write(out, counts, annotations.category_ids, origin)
    empty = int((counts == 0).sum())
    _console().print(
        f"{out}: {arguments.count}s per class for {len(counts)} classes, {counts.min()} to {counts.max()}, from "
        f"{annotations.paths.annotations}" + (f"; {empty} classes have none and cannot be weighted" if empty else ""),
        markup=False,
    )


def _load(dataset: str) -> Annotations:
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations import annotations

    return annotations.load(catalog.resolve(_dataset(dataset, ""), Path.cwd()))


# ---- stats ----------------------------------------------------------------------------------------------------------


def _add_stats(commands: argparse._SubParsersAction) -> None:
    stats = commands.add_parser("stats", help="the long tail, and repeat factors of every class")
    stats.add_argument("dataset", metavar="DATASET", help=_DATASET_HELP)
    stats.add_argument(
        "--threshold", type=float, default=0.001, metavar="T", help="data.repeat_threshold (default: 0.001)"
    )
    stats.add_argument("--csv", metavar="FILE", help="write counts and factors of every class")
    stats.set_defaults(run=_stats)


def _stats(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import statistics

    annotations = _load(arguments.dataset)
    pairs = statistics.pairs(annotations, statistics.annotated_images(annotations))
    images, instances = pairs.counts("image"), pairs.counts("instance")
    threshold = arguments.threshold
    factors = {
        "RFS": statistics.repeat_factors(images, pairs.num_images, threshold),
        "IRFS": statistics.instance_repeat_factors(images, instances, pairs.num_images, threshold),
    }
    groups = _groups(annotations, images)
    out = _console()
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


# ---- label maps -----------------------------------------------------------------------------------------------------


def _add_label_maps(commands: argparse._SubParsersAction) -> None:
    maps = commands.add_parser("label-maps", help="write the masks of a data set as label maps (PNG)")
    maps.add_argument("dataset", metavar="DATASET", help=_DATASET_HELP)
    maps.add_argument("--images", default="", metavar="FOLDER", help="where the image paths of a json start")
    maps.add_argument("--out", required=True, metavar="FOLDER", help="where the PNGs and classes.txt go")
    maps.add_argument(
        "--no-background", action="store_true", help="pixels without an object are unlabelled, not a class"
    )
    maps.set_defaults(run=_label_maps)


def _label_maps(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations.annotations import load
    from cvpods_ext.data.label_maps_of_masks import write_label_maps

    annotations = load(catalog.resolve(_dataset(arguments.dataset, arguments.images), "."))
    files = write_label_maps(annotations, Path(arguments.out).resolve(), background=not arguments.no_background)
    out = _console()
    out.print(f"wrote {len(annotations):,} label maps to {files.annotations}", markup=False)
    out.print(f"in config.py: {files}", markup=False)


# ---- synth ----------------------------------------------------------------------------------------------------------


def _add_synth(commands: argparse._SubParsersAction) -> None:
    synth = commands.add_parser("synth", help="write a small long-tailed data set with photos made of shapes")
    synth.add_argument("root", metavar="FOLDER", help="data root to write to")
    # Defaults are those of SyntheticOptions, which is only imported when it is needed.
    for flag, kind, text in (
        ("--images-train", int, "training images"),
        ("--images-val", int, "validation images"),
        ("--num-classes", int, "classes, each a shape, a colour and a texture"),
        ("--image-size", int, "longer side in pixels"),
        ("--seed", int, "the same seed gives the same files"),
        ("--spread", float, "standard deviation of ln(training images per class): 2.162 in LVIS v1, 0 is balanced"),
        ("--min-images", int, "training images of the rarest class, at least"),
        ("--val-flatness", float, "0 gives the validation set the tail of the training set, 1 equal counts"),
        ("--difficulty", float, "0 is plain, 1 is hard to tell apart"),
        ("--name", str, "part of the file names lvis_<name>_train.json ..."),
        ("--workers", int, "processes that draw"),
    ):
        synth.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=text)
    synth.set_defaults(run=_synth)


def _synth(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data.synthetic import write

    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "root", "run")}
    files = write.generate(arguments.root, **options)
    out = _console()
    for path in (files.train, files.val, files.num_shots):
        out.print(f"wrote {path}", markup=False)
    out.print(
        f"try it: PODS_DATASETS={files.root} pods_data doctor {files.train} --images {files.root / 'coco'}",
        markup=False,
    )


if __name__ == "__main__":
    main()
