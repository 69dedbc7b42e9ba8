"""What is wrong with annotations that read well: each check looks at a whole file and says what a person would see."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cvpods_ext.data import statistics
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.findings import EXAMPLES, Finding
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.progress import track

_MOST = 0.5  # share of the boxes from which a way of writing them is not an accident
_SIDE_OF_FRACTIONS = 4  # pixels; an image with a side above it has no boxes that all lie within one pixel
_EIGHT_BITS, _TWELVE_BITS = 255, 4095


def boxes(annotations: Annotations) -> Iterator[Finding]:
    """Boxes that are fractions of their image, or two corners, or contradict their polygons."""
    name, facts, every = annotations.paths.name, annotations.facts, annotations.every()
    written = every.boxes[np.isfinite(every.boxes).all(axis=1)]
    image = every.image[np.isfinite(every.boxes).all(axis=1)]
    if len(written) == 0:
        return
    sides = np.stack((annotations.widths, annotations.heights), axis=1)[image].astype(np.float64)
    if written.max() <= 1 and sides.min() > _SIDE_OF_FRACTIONS:
        text = f"all {len(written):,} boxes lie within one pixel: are they fractions of the image?"
        yield Finding("problem", name, text, "multiply x and width by the image's width, y and height by its height")
        return
    leave = (written[:, :2] + written[:, 2:] > sides + 1).any(axis=1)
    as_corners = ((written[:, 2:] > written[:, :2]) & (written[:, 2:] <= sides + 1)).all(axis=1)
    agree = facts["corners"] > _MOST * facts["disagree"]
    if (facts["disagree"] and agree) or (leave.mean() > _MOST / 5 and as_corners.mean() > 1 - _MOST / 5):
        text = f"{leave.sum():,} of {len(written):,} boxes leave their image"
        if facts["disagree"]:
            text += (
                f", {facts['disagree']:,} contradict their polygons, and {facts['corners']:,} of these agree as corners"
            )
        remedy = "are they x1, y1, x2, y2? Write x1, y1, x2 - x1, y2 - y1, or leave bbox out where there are polygons"
        yield Finding("problem", name, f"{text}: they look like two corners", remedy)
    elif facts["disagree"]:
        text = f"{facts['disagree']:,} boxes contradict their polygons (IoU below 0.5)"
        level = "problem" if facts["disagree"] > _MOST / 5 * len(written) else "note"
        yield Finding(level, name, text, "one of both is wrong; without bbox it is derived from the polygons")


def objects(annotations: Annotations) -> Iterator[Finding]:
    """Objects that are all crowds, and images without any."""
    name, facts = annotations.paths.name, annotations.facts
    if facts["crowds"] and facts["crowds"] == facts["annotations"] - sum(facts["unrelated"].values()):
        text = f"every one of the {facts['crowds']:,} annotations is a crowd, so there is nothing to train or test on"
        yield Finding(
            "problem", name, text, "iscrowd=1 is a group that is not told apart; set it to 0 for single objects"
        )
    empty = len(annotations) - len(statistics.annotated_images(annotations))
    if empty:
        text = f"{empty:,} of {len(annotations):,} images have no annotation and are left out of training"
        yield Finding("note", name, text, "data.train_on_empty_images=True trains on them; a test uses all images")


def image_files(annotations: Annotations, source: Callable[[Path], str]) -> Iterator[Finding]:
    """Compare image paths with folder listings, one per folder, since a file system answers those much faster.

    `source` says where a missing image is to be had.
    """
    name = annotations.paths.name
    wanted: dict[Path, list[str]] = defaultdict(list)
    for position in track(range(len(annotations)), f"image paths of {name}"):
        try:
            path = annotations.image_path(position)
        except DataError as error:
            yield Finding("problem", name, str(error))
            return
        wanted[path.parent].append(path.name)
    for folder, names in wanted.items():
        present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        missing = [each for each in names if each not in present]
        if not missing:
            yield Finding("ok", name, f"all {len(names):,} images that belong in {folder} are there")
            continue
        text = f"{len(missing):,} of {len(names):,} images are not in {folder}: {', '.join(missing[:EXAMPLES])}, ..."
        yield Finding("problem", name, text, _other_spelling(missing, present) or source(folder / missing[0]))


def _other_spelling(missing: list[str], present: set[str]) -> str:
    """How the files are called that the json seems to mean, "" if there are none."""
    spellings = {
        "only in capitals or the Unicode form of their letters": _plain,
        "only in their endings": lambda each: Path(_plain(each)).stem,
    }
    for difference, plain in spellings.items():
        files = {plain(each): each for each in present}
        found = [(each, files[plain(each)]) for each in missing if plain(each) in files]
        if len(found) > len(missing) / 2:
            example = f"{found[0][0]!r} in the json is {found[0][1]!r} on disk"
            return f"{len(found):,} differ {difference} ({example}): write file_name as the files are called"
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def faint_pixels(path: Path) -> str:
    """What is wrong with a file of 16 bits that uses 12 of them or fewer, "" for all others; needs Pillow."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if not image.mode.startswith("I"):
                return ""
            highest = int(np.asarray(image).max(initial=0))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""  # reported by the reader of images
    if not _EIGHT_BITS < highest <= _TWELVE_BITS:
        return ""
    return f"{path.name} has 16 bits a pixel of which 12 are used (at most {highest}): it is read as almost black"
