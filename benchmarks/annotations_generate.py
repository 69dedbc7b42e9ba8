"""Write a json with the size and the tail of LVIS v1 train, for measuring, and five photos that its images share.

    python benchmarks/annotations_generate.py /tmp/big.json             1.27 M annotations, about 1.1 GB
    python benchmarks/annotations_generate.py /tmp/fifth.json --share 0.2

Class counts are those of the shipped LVIS v1 table. Polygons are drawn from a pool of some thousand outlines with
LVIS's number of vertices (median about 24, long tail), so that writing takes a minute instead of ten.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from cvpods_ext.data import category_tables

IMAGES = 100_170
POOL = 4_000
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500))
WRITE_EVERY = 20_000


def outlines(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Pairs of json text (bbox, segmentation) of closed wobbly outlines inside a 480 x 375 frame."""
    pool = []
    for _ in range(POOL):
        vertices = int(np.clip(rng.lognormal(np.log(24), 1.1), 3, 1500))
        centre, radius = rng.uniform((40, 40), (340, 330)), np.exp(rng.normal(2.6, 1.0))
        angle = np.sort(rng.uniform(0, 2 * np.pi, vertices))
        reach = np.minimum(radius, 38) * rng.uniform(0.6, 1.0, vertices)
        points = np.round(centre + reach[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1), 2)
        low, high = points.min(axis=0), points.max(axis=0)
        box = np.round(np.concatenate((low, np.maximum(high - low, 0.5))), 2)
        pool.append((json.dumps(box.tolist()), json.dumps([points.reshape(-1).tolist()])))
    return pool


def write(path: Path, share: float, seed: int = 0) -> None:
    """Write `share` of the images and of every class's instances (at least one)."""
    rng = np.random.default_rng(seed)
    categories = category_tables.load("lvis_v1_train")
    instances = np.array([max(1, round(c.instance_count * share)) for c in categories])
    num_images = max(1, round(IMAGES * share))
    labels = rng.permutation(np.repeat(np.arange(len(categories)), instances))
    image_of = rng.integers(0, num_images, len(labels))
    pool, picks = outlines(rng), rng.integers(0, POOL, len(labels))
    with open(path, "w", encoding="utf-8") as file:
        entries = [
            {"id": c.id, "name": c.name, "frequency": c.frequency, "synset": c.name, "synonyms": [c.name],
             "def": "", "image_count": c.image_count, "instance_count": c.instance_count}
            for c in categories
        ]  # fmt: skip
        file.write('{"info": {}, "licenses": [], "categories": ' + json.dumps(entries))
        file.write(', "images": [')
        for i in range(num_images):
            height, width = SIZES[i % len(SIZES)]
            url = f"http://images.cocodataset.org/train2017/{i + 1:012d}.jpg"
            negative = rng.choice(len(categories), 9, replace=False) + 1
            image = {"id": i + 1, "height": height, "width": width, "coco_url": url, "file_name": _photo(height, width),
                     "neg_category_ids": negative.tolist(), "not_exhaustive_category_ids": []}  # fmt: skip
            file.write((", " if i else "") + json.dumps(image))
        file.write('], "annotations": [')
        for start in range(0, len(labels), WRITE_EVERY):
            lines = []
            for k in range(start, min(start + WRITE_EVERY, len(labels))):
                box, polygons = pool[picks[k]]
                lines.append(
                    f'{{"id": {k + 1}, "image_id": {image_of[k] + 1}, "category_id": {categories[labels[k]].id}, '
                    f'"area": 100.0, "bbox": {box}, "segmentation": {polygons}}}'
                )
            file.write((", " if start else "") + ", ".join(lines))
        file.write("]}")


def write_photos(folder: Path) -> None:
    """One noisy JPEG for each size, to be found by file_name."""
    for height, width in SIZES:
        pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(folder / _photo(height, width))


def _photo(height: int, width: int) -> str:
    return f"{width}x{height}.jpg"


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("json", type=Path)
    flags.add_argument("--share", type=float, default=1.0, help="of the size of LVIS v1 train")
    arguments = flags.parse_args()
    write(arguments.json, arguments.share)
    write_photos(arguments.json.parent)
    print(f"{arguments.json}: {arguments.json.stat().st_size / 1e6:.0f} MB")
