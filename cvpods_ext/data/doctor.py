"""What is present of a data set, what is missing, what is broken, and where to get it. Never imports torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, num_shots, statistics
from cvpods_ext.data.annotations import annotations as annotation_files
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.errors import DataError, UserError
from cvpods_ext.runtime.progress import track

Level = Literal["ok", "note", "problem"]
EXAMPLES = 3
GROUP_NAMES = ("rare", "common", "frequent")


@dataclass(frozen=True)
class Finding:
    """One line of the report; a problem names its remedy."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def examine_experiment(data: DetectionData, start: Path | str) -> Iterator[Finding]:
    """Check what an experiment trains and tests on, and that both sets and the class counts fit one network."""
    yield from examine(data.train, start)
    if data.test != data.train:
        yield from examine(data.test, start)
    try:
        train, test = (annotation_files.load(catalog.resolve(each, start)) for each in (data.train, data.test))
        num_classes = catalog.num_classes(data, start)
    except UserError:
        return  # already reported
    for each in (train, test):
        if each.num_classes != num_classes:
            text = f"{each.num_classes} categories, but the network gets {num_classes} classes"
            yield Finding("problem", each.paths.name, text, "train and test must list the same categories")
    if not np.array_equal(train.category_ids, test.category_ids):
        text = f"category ids of {train.paths.annotations.name} and {test.paths.annotations.name} differ"
        yield Finding("problem", "categories", text, "labels are positions in the sorted ids: give both the same list")
    try:
        num_shots.class_counts(data, start)
    except UserError as error:
        level: Level = "problem" if data.num_shots else "note"
        yield Finding(level, "class counts", str(error), "only losses and calibrations that weigh classes need them")


def examine(dataset: str | DatasetFiles, start: Path | str) -> Iterator[Finding]:
    """Check one data set: files, categories, annotations, image paths, published class counts."""
    known = catalog.known(dataset) if isinstance(dataset, str) else None
    try:
        paths = catalog.resolve(dataset, start)
    except DataError as error:
        yield Finding("problem", "data root", str(error))
        for download in known.downloads if known else ():
            yield Finding("note", download.unpacks_to, "belongs in the data root", _get(download))
        return
    if known is not None:
        yield from _missing_downloads(known, paths)
    if known is not None and not paths.annotations.is_file():
        return
    try:
        annotations = annotation_files.load(paths)
    except DataError as error:
        yield Finding("problem", paths.name, str(error), _source(known, paths, paths.annotations))
        return
    index = annotations.index
    text = f"{len(annotations):,} images, {len(index.label):,} annotations, {annotations.num_classes:,} categories"
    yield Finding("ok", paths.name, f"{text} in {paths.annotations}")
    yield from _categories(annotations, known)
    yield from _broken(annotations)
    yield from _image_files(annotations, known)
    if known is not None and known.num_shots and (paths.root / known.num_shots).is_file():
        yield from _published_counts(paths.root / known.num_shots, known, paths)


def _missing_downloads(known: catalog.KnownDataset, paths: catalog.DatasetPaths) -> Iterator[Finding]:
    for download in known.downloads:
        if (paths.root / download.unpacks_to).exists():
            continue
        optional = download.unpacks_to == known.num_shots
        text = f"not in {paths.root}" + (f"; the shipped counts of {known.table} are used instead" if optional else "")
        yield Finding("note" if optional else "problem", download.unpacks_to, text, _get(download))


def _get(download: catalog.Download) -> str:
    return f"get {download.url} ({download.size})"


def examine_pixels(dataset: str | DatasetFiles, start: Path | str) -> Iterator[Finding]:
    """Decode every image, on all cores; finds truncated files and sizes that differ from the json."""
    from cvpods_ext.data import images  # deferred: the only check that needs torch

    annotations = annotation_files.load(catalog.resolve(dataset, start))

    def problem(position: int) -> str:
        try:
            identity = int(annotations.image_ids[position])
            images.read(annotations.image_path(position), annotations.size(position), identity)
        except DataError as error:
            return str(error)
        return ""

    name = annotations.paths.name
    with ThreadPoolExecutor() as threads:
        found = track(threads.map(problem, range(len(annotations))), f"decoding {name}", total=len(annotations))
        problems = [text for text in found if text]
    for text in problems:
        yield Finding("problem", name, text, "training skips it, a test stops at it")
    if not problems:
        yield Finding("ok", name, f"all {len(annotations):,} images decode and have the size of the json")


def _source(known: catalog.KnownDataset | None, paths: catalog.DatasetPaths, missing: Path) -> str:
    """Where to get what should lie at `missing`."""
    if known is None:
        return "correct DatasetFiles in config.py, or set PODS_DATASETS to the folder that its paths start from"
    for download in known.downloads:
        target = paths.root / download.unpacks_to
        if target == missing or target in missing.parents:
            return f"{_get(download)}; it unpacks to {target}"
    return f"the images belong below {paths.images}"


def _categories(annotations: Annotations, known: catalog.KnownDataset | None) -> Iterator[Finding]:
    name = annotations.paths.name
    if known is not None and annotations.num_classes != known.num_classes:
        text = f"{annotations.num_classes} categories, {name} has {known.num_classes}"
        yield Finding("problem", name, text, "this is another file under a known name; use DatasetFiles for it")
    counts = statistics.class_counts(annotations)
    absent = np.flatnonzero(counts == 0)
    if len(absent):
        names = ", ".join(annotations.categories[label].name for label in absent[:EXAMPLES])
        yield Finding("note", name, f"{len(absent)} categories have no annotation here ({names}, ...)")
    groups = [category.frequency for category in annotations.categories]
    if "" not in groups:
        shares = ", ".join(f"{groups.count(group)} {word}" for group, word in zip("rcf", GROUP_NAMES, strict=True))
        yield Finding("ok", name, f"frequency groups of the json: {shares}")


def _broken(annotations: Annotations) -> Iterator[Finding]:
    name, facts = annotations.paths.name, annotations.facts
    for kind, count in facts["images_dropped"].items():
        yield Finding("problem", name, f"{count:,} x {kind}", "these images are not used; mend the json")
    for kind, count in annotations.dropped.items():
        yield Finding("problem", name, f"{count:,} x {kind}", f"not used; listed in {annotations.dropped_list}")
    for kind, count in facts["noted"].items():
        yield Finding("note", name, f"{count:,} x {kind}")
    if facts["crowds"]:
        yield Finding("note", name, f"{facts['crowds']:,} x crowd annotation, not trained on")


def _image_files(annotations: Annotations, known: catalog.KnownDataset | None) -> Iterator[Finding]:
    """Compare image paths with folder listings, one per folder, since a file system answers those much faster."""
    wanted: dict[Path, list[str]] = defaultdict(list)
    for position in track(range(len(annotations)), f"image paths of {annotations.paths.name}"):
        path = annotations.image_path(position)
        wanted[path.parent].append(path.name)
    for folder, names in wanted.items():
        present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        missing = [name for name in names if name not in present]
        if missing:
            text = (
                f"{len(missing):,} of {len(names):,} images are not in {folder}: {', '.join(missing[:EXAMPLES])}, ..."
            )
            remedy = _source(known, annotations.paths, folder / missing[0])
            yield Finding("problem", annotations.paths.name, text, remedy)
        else:
            yield Finding("ok", annotations.paths.name, f"all {len(names):,} images that belong in {folder} are there")


def _published_counts(path: Path, known: catalog.KnownDataset, paths: catalog.DatasetPaths) -> Iterator[Finding]:
    try:
        length = len(num_shots.read(path))
    except DataError as error:
        yield Finding("problem", paths.name, str(error), _source(known, paths, path))
        return
    fits = length == known.num_classes
    text = f"{path} has counts for {length} classes" + ("" if fits else f", {paths.name} has {known.num_classes}")
    yield Finding("ok" if fits else "problem", paths.name, text, "" if fits else _source(known, paths, path))
