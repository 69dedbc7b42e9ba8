"""A synthetic LVIS validation load of any size: annotation json and detection shards, written in bounded memory.

Full scale is LVIS v1 val: 19,809 images, 1,203 categories, 300 detections an image, about half of them in verified
(image, category) pairs. Objects are ellipse-like polygons; areas, instances and negatives follow LVIS's marginals.

Run:  python benchmarks/evaluation_load.py FOLDER --scale 0.05
"""

from __future__ import annotations

import argparse
import csv
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pycocotools.mask as coco_mask

import cvpods_ext.data
from cvpods_ext.evaluation.detection.shards import shard_schema
from cvpods_ext.evaluation.shards import shard_metadata

IMAGES = 19_809
PER_IMAGE = 300
HEIGHT, WIDTH = 480, 640
IMAGES_PER_SHARD = 500
NEGATIVES = 9


def categories() -> list[dict]:
    """The categories of LVIS v1 with their training counts."""
    path = Path(cvpods_ext.data.__file__).parent / "tables" / "lvis_v1_train.csv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return [
        {
            "id": int(row["id"]),
            "name": row["name"],
            "frequency": row["frequency"],
            "image_count": int(row["image_count"]),
        }
        for row in rows
    ]


def polygons(rng: np.random.Generator, boxes: np.ndarray, vertices: int = 24) -> np.ndarray:
    """(N, 4) XYWH -> (N, 2 * vertices) uneven ellipses that fill the boxes."""
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    unit = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    radius = 0.5 * (1 + 0.08 * rng.normal(size=(len(boxes), vertices, 1)))
    points = boxes[:, None, :2] + boxes[:, None, 2:] * (0.5 + unit * radius)
    return np.clip(points, 0, (WIDTH, HEIGHT)).reshape(len(boxes), -1)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) XYWH with LVIS's spread of areas (log-normal) and aspect ratios."""
    side = np.exp(rng.normal(6.65, 1.97, count) / 2) * 1.2
    aspect = np.exp(rng.normal(0, 0.77, count) / 2)
    size = np.clip(np.stack((side * aspect, side / aspect), axis=1), 3, (WIDTH - 2, HEIGHT - 2))
    corner = rng.random((count, 2)) * ((WIDTH, HEIGHT) - size)
    return np.concatenate((corner, size), axis=1)


def make_image(rng: np.random.Generator, popularity: np.ndarray) -> dict[str, np.ndarray]:
    """Objects of one image: distinct classes by popularity, one instance half of the time, else several."""
    present = rng.choice(len(popularity), size=1 + rng.poisson(2.6), replace=False, p=popularity)
    instances = np.where(rng.random(len(present)) < 0.5, 1, 2 + rng.geometric(0.22, len(present)))
    classes = np.repeat(present, instances)
    absent = np.setdiff1d(rng.choice(len(popularity), size=NEGATIVES, replace=False), present)
    return {"classes": classes, "boxes": random_boxes(rng, len(classes)), "absent": absent}


def make_detections(rng: np.random.Generator, image: dict[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    """300 detections: half of verified classes (most near an object of the class), half of any class."""
    classes, boxes = image["classes"], image["boxes"]
    of = rng.integers(0, len(classes), PER_IMAGE)
    spread = np.exp(rng.normal(-2, 1, (PER_IMAGE, 1)))
    moved = boxes[of] + np.tile(boxes[of, 2:], 2) * rng.normal(size=(PER_IMAGE, 4)) * spread
    moved[:, 2:] = np.clip(moved[:, 2:], 2, (WIDTH, HEIGHT))
    near = rng.random(PER_IMAGE) < 0.6
    found = np.where(near[:, None], moved, random_boxes(rng, PER_IMAGE))
    corner = np.clip(found[:, :2], 0, (WIDTH - 3, HEIGHT - 3))
    found = np.concatenate((corner, np.minimum(found[:, 2:], (WIDTH, HEIGHT) - corner)), axis=1)
    kind = rng.random(PER_IMAGE)
    negative = rng.choice(image["absent"], PER_IMAGE)
    category = np.where(
        kind < 0.4, classes[of], np.where(kind < 0.51, negative, rng.integers(0, num_classes, PER_IMAGE))
    )
    good = np.exp(-3 * spread[:, 0]) * near * (kind < 0.4)
    score = np.clip(0.05 * rng.exponential(size=PER_IMAGE) + 0.7 * good * rng.random(PER_IMAGE), 1e-4, 1)
    order = np.argsort(-score, kind="stable")
    return {"boxes": found[order], "labels": category[order], "scores": score[order]}


def write_shard(folder: Path, num_categories: list[dict], image_ids: list[int]) -> list[dict]:
    """Write the detections of some images; returns json records of the images with their annotations inside."""
    ids = np.array([category["id"] for category in num_categories])
    popularity = np.array([category["image_count"] for category in num_categories], dtype=float)
    popularity /= popularity.sum()
    columns: dict[str, list] = {name: [] for name in shard_schema(pa.float32()).names}
    records = []
    for image_id in image_ids:
        rng = np.random.default_rng(image_id)
        image = make_image(rng, popularity)
        found = make_detections(rng, image, len(ids))
        rles = coco_mask.frPyObjects(polygons(rng, found["boxes"]).tolist(), HEIGHT, WIDTH)
        boxes = found["boxes"].astype(np.float32)
        for name, values in zip(
            columns,
            (
                np.full(PER_IMAGE, image_id),
                ids[found["labels"]],
                found["scores"],
                *boxes.T,
                [r["counts"] for r in rles],
            ),
            strict=False,
        ):
            columns[name].append(values)
        records.append(_record(rng, image_id, image, ids))
    count = PER_IMAGE * len(image_ids)
    arrays = [np.concatenate(columns[name]) for name in list(columns)[:7]]
    arrays += [
        [mask for masks in columns["rle_counts"] for mask in masks],
        np.full(count, HEIGHT),
        np.full(count, WIDTH),
    ]
    schema = shard_schema(pa.float32()).with_metadata(shard_metadata(image_ids, {"synthetic": True}))
    fields = [pa.array(values, field.type) for values, field in zip(arrays, schema, strict=True)]
    shard = image_ids[0] // IMAGES_PER_SHARD
    pq.write_table(
        pa.Table.from_arrays(fields, schema=schema), folder / f"detections-0-{shard}.parquet", compression="zstd"
    )
    return records


def _record(rng: np.random.Generator, image_id: int, image: dict[str, np.ndarray], ids: np.ndarray) -> dict:
    rings = np.round(polygons(rng, image["boxes"]), 2)
    area = np.round(image["boxes"][:, 2] * image["boxes"][:, 3] * np.pi / 4, 2)
    annotations = [
        {"image_id": image_id, "category_id": int(ids[label]), "bbox": np.round(box, 2).tolist()}
        | {"area": float(a), "segmentation": [ring.tolist()]}
        for label, box, a, ring in zip(image["classes"], image["boxes"], area, rings, strict=True)
    ]
    partial_classes = image["classes"][:1] if rng.random() < 0.12 else image["classes"][:0]
    return {
        "image": {
            "id": image_id,
            "height": HEIGHT,
            "width": WIDTH,
            "neg_category_ids": ids[image["absent"]].tolist(),
            "not_exhaustive_category_ids": ids[partial_classes].tolist(),
        },
        "annotations": annotations,
    }


def generate(folder: Path, scale: float, workers: int = 2) -> tuple[Path, Path]:
    """Write `annotations.json` and `shards/` below `folder`, once; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path, shards = folder / "annotations.json", folder / "shards"
    if path.exists():
        return path, shards
    shards.mkdir(exist_ok=True)
    count = round(IMAGES * scale)
    groups = [list(range(k, min(k + IMAGES_PER_SHARD, count))) for k in range(0, count, IMAGES_PER_SHARD)]
    known = categories()
    images, number = [], 0
    temporary = path.with_suffix(".tmp")
    with ProcessPoolExecutor(workers) as pool, open(temporary, "w", encoding="ascii") as file:
        file.write('{"annotations": [')
        for records in pool.map(partial(write_shard, shards, known), groups):
            for record in records:
                images.append(record["image"])
                for annotation in record["annotations"]:
                    number += 1
                    file.write((",\n" if number > 1 else "\n") + json.dumps({"id": number, **annotation}))
        file.write(f'],\n"images": {json.dumps(images)},\n"categories": {json.dumps(known)}}}\n')
    temporary.replace(path)
    return path, shards


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=0.05, help="1 is LVIS v1 val")
    arguments = parser.parse_args()
    generate(arguments.folder, arguments.scale)
