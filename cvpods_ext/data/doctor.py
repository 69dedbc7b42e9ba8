"""What is present of a data set, what is missing, what is broken, and where to get it. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, category_check, doctor_checks, num_shots, statistics
from cvpods_ext.data.annotations import annotations as annotation_files
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.category_check import REMEDY
from cvpods_ext.data.findings import EXAMPLES, Finding, Level
from cvpods_ext.errors import DataError, UserError
from cvpods_ext.runtime.progress import track

GROUP_NAMES = ("rare", "common", "frequent")


def examine_experiment(data: DetectionData, start: Path | str) -> Iterator[Finding]:
    """Check what an experiment trains and tests on, and that both sets and the class counts fit one network."""
    for each in data.train if isinstance(data.train, tuple) else (data.train,):
        yield from examine(each, start)
    if data.test != data.train:
        yield from examine(data.test, start)
    try:
        train, test = (catalog.load(each, start) for each in (data.train, data.test))
        expected = catalog.categories(data.train, start)
    except DataError as error:
        if isinstance(data.train, tuple):
            yield Finding("problem", "training files", str(error), "files are joined by the names of their categories")
        return  # already reported
    except UserError:
        return
    if isinstance(data.train, tuple):
        text = f"{len(data.train)} files joined by name: {len(train):,} images, {train.num_classes} categories"
        yield Finding("ok", train.paths.name, text)
    for each in (train, test):
        for text in category_check.differences(expected, each.categories):
            yield Finding("problem", each.paths.name, f"categories of training and test differ: {text}", REMEDY)
    yield from _repetition(data, train)
    try:
        num_shots.class_counts(data, start)
    except UserError as error:
        level: Level = "problem" if data.num_shots else "note"
        yield Finding(level, "class counts", str(error), "only losses and calibrations that weigh classes need them")


def _repetition(data: DetectionData, train: Annotations) -> Iterator[Finding]:
    """Whether repeat-factor sampling repeats anything."""
    if data.sampler == "uniform":
        return
    pairs = statistics.pairs(train, statistics.annotated_images(train))
    text = statistics.nothing_repeats(pairs, data.sampler, data.repeat_threshold)
    if text:
        yield Finding("note", "sampler", text)


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
        remedy = "" if paths.annotations.is_file() else _source(known, paths, paths.annotations)
        yield Finding("problem", paths.name, str(error), remedy)
        return
    index = annotations.index
    text = f"{len(annotations):,} images, {len(index.label):,} annotations, {annotations.num_classes:,} categories"
    yield Finding("ok", paths.name, f"{text} in {paths.annotations}")
    yield from _categories(annotations, known)
    yield from _broken(annotations)
    yield from doctor_checks.boxes(annotations)
    yield from doctor_checks.objects(annotations)
    yield from doctor_checks.image_files(annotations, lambda path: _source(known, paths, path))
    if known is not None and known.num_shots and (paths.root / known.num_shots).is_file():
        yield from _published_counts(paths.root / known.num_shots, known, paths, annotations.category_ids.tolist())


def _missing_downloads(known: catalog.KnownDataset, paths: catalog.DatasetPaths) -> Iterator[Finding]:
    for download in known.downloads:
        if (paths.root / download.unpacks_to).exists():
            continue
        optional = download.unpacks_to == known.num_shots
        text = f"not in {paths.root}" + (f"; the shipped counts of {known.table} are used instead" if optional else "")
        yield Finding("note" if optional else "problem", download.unpacks_to, text, _get(download))


def _get(download: catalog.Download) -> str:
    return f"get {download.url} ({download.size})"


def examine_pixels(dataset: catalog.Dataset, start: Path | str) -> Iterator[Finding]:
    """Decode every image, on all cores; finds truncated files, sizes that differ from the json, and 12 bits in 16."""
    from cvpods_ext.data import images  # deferred: the only check that needs torch

    annotations = catalog.load(dataset, start)
    name = annotations.paths.name

    def problem(position: int) -> Finding | None:
        try:
            identity = int(annotations.image_ids[position])
            path = annotations.image_path(position)
            images.read(path, annotations.size(position), identity)
        except DataError as error:
            return Finding("problem", name, str(error), "training skips it, a test stops at it")
        faint = doctor_checks.faint_pixels(path)
        return Finding("problem", name, faint, "multiply its values by 16, or write 8 bits a pixel") if faint else None

    with ThreadPoolExecutor() as threads:
        found = track(threads.map(problem, range(len(annotations))), f"decoding {name}", total=len(annotations))
        problems = [finding for finding in found if finding]
    yield from problems
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
    counts = statistics.count_classes(annotations)
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


def _published_counts(
    path: Path, known: catalog.KnownDataset, paths: catalog.DatasetPaths, category_ids: Sequence[int]
) -> Iterator[Finding]:
    try:
        length = len(num_shots.read_num_shots(path, category_ids))
    except DataError as error:
        yield Finding("problem", paths.name, str(error), _source(known, paths, path))
        return
    yield Finding("ok", paths.name, f"{path} has counts for {length} classes")
