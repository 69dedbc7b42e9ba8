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
    on_image: dict[object, set] = {}
    for annotation in content["annotations"]:
        of_class.setdefault(annotation["category_id"], set()).add(annotation["image_id"])
        on_image.setdefault(annotation["image_id"], set()).add(annotation["category_id"])
    ids = [image["id"] for image in content["images"]]
    order = [ids[i] for i in rng.permutation(len(ids)).tolist()]
    place = {image: i for i, image in enumerate(order)}
    left = {label: len(images) for label, images in of_class.items()}  # training images of each class
    wanted, tested = max(1, round(share * len(order))), set()

    def take(image: object) -> None:
        """Test it, if every class on it keeps another training image."""
        classes = on_image.get(image, ())
        if image not in tested and all(left[label] > 1 for label in classes):
            tested.add(image)
            for label in classes:
                left[label] -= 1

    for label, images in sorted(of_class.items(), key=lambda pair: len(pair[1])):
        target = max(1, int(share * len(images))) if len(images) > 1 else 0
        for image in sorted(images & place.keys(), key=place.__getitem__):
            if len(images) - left[label] >= target or len(tested) >= wanted:
                break
            take(image)
    for image in order:
        if len(tested) >= wanted:
            break
        take(image)
    return tested
