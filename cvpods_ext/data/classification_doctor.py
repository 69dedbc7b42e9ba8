"""What is present of a data set for classification, what is missing or broken. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cvpods_ext.config.classification import ClassificationData, ImageFiles
from cvpods_ext.data import classification, classification_statistics, statistics
from cvpods_ext.data.classification import LabelledPhotos
from cvpods_ext.data.doctor import EXAMPLES
from cvpods_ext.data.findings import Finding
from cvpods_ext.errors import DataError, UserError
from cvpods_ext.runtime.image_file import open_image
from cvpods_ext.runtime.progress import track


def examine_experiment(data: ClassificationData, start: Path | str, *, decode: bool = False) -> Iterator[Finding]:
    """Check what an experiment trains and tests on: classes, files, and with `decode` every image."""
    loaded = []
    for dataset in dict.fromkeys((data.train, data.test)):
        found = yield from _examine(data, dataset, start, decode)
        if found is None:
            return
        loaded.append(found)
    train, test = loaded[0], loaded[-1]
    yield from _sampling(data, train)
    if train is not test:
        shared = {path.resolve() for path in _paths(train)} & {path.resolve() for path in _paths(test)}
        if shared:
            text = f"{len(shared):,} files are in both sets, such as {min(shared)}"
            yield Finding("problem", "both sets", text, "take them out of the training set")


def _paths(dataset: LabelledPhotos) -> Iterator[Path]:
    return map(dataset.image_path, range(len(dataset)))


def _examine(data: ClassificationData, dataset: str | ImageFiles, start: Path | str, decode: bool):
    """Findings; returns the data set, None where it cannot be listed."""
    try:
        loaded = classification.load(data, dataset, start)
    except UserError as error:
        yield Finding("problem", dataset if isinstance(dataset, str) else dataset.images, str(error))
        return None
    counts = loaded.counts()
    present = counts[counts > 0]
    text = f"{len(loaded):,} images of {len(present):,} classes, {present.min():,} to {present.max():,} each"
    yield Finding("ok", loaded.name, text)
    if len(present) < len(counts):
        names = [each.name for each, count in zip(loaded.classes, counts, strict=True) if not count]
        remedy = "losses that weigh classes refuse them" if dataset == data.train else "no mean over classes has them"
        yield Finding("note", loaded.name, f"{len(names)} classes have no image here ({_some(names)})", remedy)
    if again := loaded.listed_again():
        text, remedy = f"{again:,} entries name a file that an earlier one names", "each counts as an image of its own"
        yield Finding("note" if dataset == data.train else "problem", loaded.name, text, remedy)
    problems = _unreadable(loaded, decode)
    for text in problems[:EXAMPLES]:
        yield Finding("problem", loaded.name, text, "training replaces the image, a test stops at it")
    if len(problems) > EXAMPLES:
        yield Finding("problem", loaded.name, f"{len(problems) - EXAMPLES:,} further images cannot be read")
    return loaded


def _unreadable(dataset: LabelledPhotos, decode: bool) -> list[str]:
    """What is wrong with which files: absent or empty ones, with `decode` every one that cannot be decoded."""

    def look(path: Path) -> str:
        try:
            if not decode:
                return "" if path.stat().st_size else f"{path} is empty"
            with open_image(path) as image:
                image.load()
        except FileNotFoundError:
            return f"{path} does not exist"
        except (OSError, DataError) as error:
            return f"{path} cannot be decoded ({error})"
        return ""

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        found = threads.map(look, _paths(dataset), chunksize=64)
        return [text for text in track(found, f"images of {dataset.name}", total=len(dataset)) if text]


def _sampling(data: ClassificationData, train: LabelledPhotos) -> Iterator[Finding]:
    if data.sampler == "uniform":
        return
    pairs = classification_statistics.pairs(train, np.arange(len(train)))
    if told := statistics.nothing_repeats(pairs, data.sampler, data.repeat_threshold):
        yield Finding("note", train.name, told)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")
