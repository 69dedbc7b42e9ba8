"""One annotation file in two: images for training and for testing, so that every class is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import read_json, write_json


def split(source: Path, train: Path, test: Path, share: float, seed: int = 0) -> tuple[int, int]:
    """Write `train` and `test`, with about `share` of the images in `test`; returns their numbers of images.

    A class keeps at least one training image, and with two or more images it gets a test image where that leaves the
    share nearly right: rare classes are dealt out first. Categories and everything else of the file are in both.
    DataError for a file without images, annotations or categories.
    """
    if not 0 < share < 1:
        raise DataError(f"a share of {share} cannot be split off; give one between 0 and 1, such as 0.2")
    content = read_json(source)
    if not isinstance(content, dict) or not all(content.get(key) for key in ("images", "annotations", "categories")):
        raise DataError(f"{source} lacks images, annotations or categories; give a json in COCO or LVIS layout")
    tested = _chosen(content, share, np.random.default_rng(seed))
    for path, wanted in ((train, False), (test, True)):
        images = [image for image in content["images"] if (image["id"] in tested) == wanted]
        found = [one for one in content["annotations"] if (one["image_id"] in tested) == wanted]
        write_json(path, {**content, "images": images, "annotations": found})
    return len(content["images"]) - len(tested), len(tested)


def _chosen(content: dict, share: float, rng: np.random.Generator) -> set:
    """Ids of the test images: of every class, from the rarest on, its share, rounded down but at least one of two."""
    of_class: dict[object, set] = {}
    for annotation in content["annotations"]:
        of_class.setdefault(annotation["category_id"], set()).add(annotation["image_id"])
    rest = [image["id"] for image in rng.permutation(np.array(content["images"], dtype=object))]
    wanted = max(1, round(share * len(rest)))
    tested: set = set()
    for images in sorted(of_class.values(), key=len):
        ordered = [image for image in rest if image in images]
        target = max(1, int(share * len(ordered))) if len(ordered) > 1 else 0
        for image in ordered:
            if sum(each in tested for each in ordered) >= target or len(tested) >= wanted:
                break
            if image not in tested and _leaves_one(image, tested, of_class):
                tested.add(image)
    for image in rest:
        if len(tested) >= wanted:
            break
        if image not in tested and _leaves_one(image, tested, of_class):
            tested.add(image)
    return tested


def _leaves_one(image: object, tested: set, of_class: dict[object, set]) -> bool:
    """Whether every class on the image keeps another training image."""
    return all(len(images - tested) > 1 for images in of_class.values() if image in images)
