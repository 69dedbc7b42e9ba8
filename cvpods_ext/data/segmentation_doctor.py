"""What is present of a data set with label maps, what is missing or broken. Never imports torch.

Label maps are read by the reader of training and test, so what passes here is trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationData
from cvpods_ext.data import segmentation
from cvpods_ext.data.doctor import EXAMPLES, Finding
from cvpods_ext.data.segmentation import IGNORE, LabelledImages
from cvpods_ext.errors import UserError
from cvpods_ext.runtime.progress import track

MOSTLY = 0.5  # of all pixels without a label is worth a note
_ROTATED = 5  # EXIF orientations from here on swap height and width


def examine_experiment(data: SegmentationData, start: Path | str, *, decode: bool = False) -> Iterator[Finding]:
    """Check what an experiment trains and tests on, and that both sets name the same classes.

    Label maps are always decoded, images with `decode`.
    """
    names = []
    for dataset in dict.fromkeys((data.train, data.test)):
        yield from examine(dataset, start, decode=decode)
        try:
            names.append([each.name for each in segmentation.load(dataset, start).classes])
        except UserError:
            return  # already reported
    if names[0] != names[-1]:
        text = f"the training set has the classes {names[0][:EXAMPLES]}, ..., the test set {names[-1][:EXAMPLES]}, ..."
        yield Finding("problem", "classes", text, "give both the same list, in the same order")


def examine(dataset: str | LabelMapFiles, start: Path | str, *, decode: bool = False) -> Iterator[Finding]:
    """Check one data set: folders, pairs, every label map, the sizes of the images."""
    try:
        loaded = segmentation.load(dataset, start)
    except UserError as error:
        subject = dataset if isinstance(dataset, str) else dataset.images
        yield Finding("problem", subject, str(error))
        return
    yield Finding("ok", loaded.name, f"{len(loaded):,} images with label maps, {loaded.num_classes} classes")
    yield from _label_maps_without_image(loaded)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        found = threads.map(lambda position: _look(loaded, position, decode), range(len(loaded)))
        looked = list(track(found, f"label maps of {loaded.name}", total=len(loaded)))
    problems = [result for result in looked if isinstance(result, str)]
    for text in problems:
        yield Finding("problem", loaded.name, text, "training skips the image, a test stops at it")
    counts = sum((result for result in looked if not isinstance(result, str)), np.zeros(IGNORE + 1, np.int64))
    if not problems:
        yield Finding("ok", loaded.name, "all label maps hold classes of the list and have the size of their image")
    yield from _classes(loaded, counts)


def _look(dataset: LabelledImages, position: int, decode: bool) -> np.ndarray | str:
    """Pixels of every value (256,), or what is wrong."""
    try:
        labels = dataset.read_labels(position)
        with Image.open(dataset.image_path(position)) as image:
            size = (image.height, image.width)
            if decode:
                image.load()
            if image.getexif().get(0x0112, 1) >= _ROTATED and size != labels.shape:
                size = size[::-1]
    except UserError as error:
        return str(error)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{dataset.image_path(position)} cannot be opened ({error})"
    if size != labels.shape:
        shape = f"{labels.shape[1]} x {labels.shape[0]}"
        return f"{dataset.image_path(position)} is {size[1]} x {size[0]} pixels, its label map {shape}"
    return np.bincount(labels.ravel(), minlength=IGNORE + 1)


def _label_maps_without_image(dataset: LabelledImages) -> Iterator[Finding]:
    stems = {dataset.stem(position) for position in range(len(dataset))}
    left = [stem for stem in segmentation.stems_of_labels(dataset.labels) if stem not in stems]
    if left:
        text = f"{len(left):,} label maps have no image: {', '.join(left[:EXAMPLES])}, ..."
        yield Finding("note", dataset.name, text, "they are not used")


def _classes(dataset: LabelledImages, counts: np.ndarray) -> Iterator[Finding]:
    """Classes without pixels, and how much is labelled at all."""
    absent = [each.name for each, count in zip(dataset.classes, counts, strict=False) if not count]
    if absent:
        text = f"{len(absent)} classes have no pixel here ({', '.join(absent[:EXAMPLES])}, ...)"
        yield Finding("note", dataset.name, text)
    share = counts[IGNORE] / max(counts.sum(), 1)
    if share > MOSTLY:
        hint = "" if dataset.reduce_zero_label else "; is 0 meant as unlabelled (reduce_zero_label)?"
        yield Finding("note", dataset.name, f"{share:.0%} of the pixels have no label{hint}")
