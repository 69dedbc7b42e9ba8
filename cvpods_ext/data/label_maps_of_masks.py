"""Label maps from masks of instances: every annotated data set becomes one for semantic segmentation.

A pixel belongs to the smallest object that covers it, as what is small lies in front more often than not.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cvpods_ext.config.segmentation import LabelMapFiles
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.detection_dataset import read_targets
from cvpods_ext.data.segmentation import IGNORE, MOST_CLASSES
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import atomic_path, write_text
from cvpods_ext.runtime.progress import track

BACKGROUND = "background"


def write_label_maps(annotations: Annotations, folder: Path, *, background: bool = True) -> LabelMapFiles:
    """Write a PNG for every image of `annotations` and classes.txt below `folder`; existing PNGs are replaced.

    With `background` what no object covers is class 0, for sets in which everything is annotated; otherwise it has no
    label. DataError for more classes than 8 bits hold.
    """
    names = [BACKGROUND] * background + [category.name for category in annotations.categories]
    if len(names) > MOST_CLASSES:
        raise DataError(
            f"{annotations.paths.annotations} has {len(names)} classes with the background; label maps of 8 bits hold "
            f"{MOST_CLASSES}"
        )
    root = annotations.paths.images

    def write(position: int) -> None:
        stem = annotations.image_path(position).relative_to(root).with_suffix(".png")
        with atomic_path(folder / stem) as temporary:
            Image.fromarray(label_map(annotations, position, background=background)).save(temporary, format="PNG")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        written = threads.map(write, range(len(annotations)))
        for _ in track(written, f"label maps of {annotations.paths.name}", total=len(annotations)):
            pass
    write_text(folder / "classes.txt", "\n".join(names) + "\n")
    inside = os.path.commonpath([str(annotations.image_path(i).parent) for i in range(len(annotations))])
    labels = folder / Path(inside).relative_to(root)  # other splits may lie beside these images
    return LabelMapFiles(images=inside, annotations=str(labels), classes=str(folder / "classes.txt"))


def label_map(annotations: Annotations, position: int, *, background: bool) -> np.ndarray:
    """uint8 (H, W) of one image: label plus one (plus zero without background), 0 or IGNORE where no object is."""
    size, targets = annotations.size(position), read_targets(annotations, position)
    labels = np.full(size, 0 if background else IGNORE, np.uint8)
    if targets.masks is None:
        return labels
    bitmaps = targets.masks.to_bitmasks(size).bitmaps.numpy()
    for i in np.argsort(-bitmaps.sum(axis=(1, 2)), kind="stable"):
        labels[bitmaps[i]] = int(targets.labels[i]) + background
    return labels
