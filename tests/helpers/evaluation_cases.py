"""Annotation files and detections for the evaluation tests: perturbed real annotations, and synthetic corner cases."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask

from cvpods_ext.evaluation.detection.coco_json import import_json


def write_case(folder: Path, annotations: dict, detections: list[dict]) -> tuple[Path, Path]:
    """Write the annotation json and the detections as shards; returns (json path, shard folder)."""
    folder.mkdir(exist_ok=True)
    path = folder / "annotations.json"
    path.write_text(json.dumps(annotations))
    results = folder / "results.json"
    results.write_text(json.dumps(detections))
    shards = folder / "shards"
    import_json(results, shards) if detections else write_empty(shards, annotations)
    return path, shards


def write_empty(shards: Path, annotations: dict) -> None:
    """A complete shard of images in which nothing was found."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cvpods_ext.evaluation.detection.shards import shard_schema
    from cvpods_ext.evaluation.shards import shard_metadata

    shards.mkdir(parents=True)
    metadata = shard_metadata([image["id"] for image in annotations["images"]], {})
    schema = shard_schema(pa.float64()).with_metadata(metadata)
    pq.write_table(schema.empty_table(), shards / "detections-0-0.parquet")


def rle_json(bitmap: np.ndarray) -> dict:
    """Compressed RLE with text counts."""
    rle = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def box_mask(height: int, width: int, box) -> dict:
    """RLE of the pixels whose centre is in the box."""
    x, y, w, h = box
    rows, columns = np.mgrid[:height, :width] + 0.5
    return rle_json((columns > x) & (columns < x + w) & (rows > y) & (rows < y + h))


def perturbed(annotations: dict, seed: int = 0, per_object: int = 4) -> list[dict]:
    """Detections near every annotated object, some of another class, with masks from the shifted polygons."""
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    categories = [category["id"] for category in annotations["categories"]]
    verified = {image["id"]: [*image.get("neg_category_ids", [])] for image in annotations["images"]}
    for a in annotations["annotations"]:
        verified[a["image_id"]].append(a["category_id"])
    detections = []
    for a in annotations["annotations"]:
        height, width = sizes[a["image_id"]]
        box = np.array(a["bbox"])
        for k in range(per_object):
            jitter = rng.normal(0, 0.02 + 0.08 * k, 4) * np.array([box[2], box[3], box[2], box[3]])
            moved = np.round([box[0] + jitter[0], box[1] + jitter[1], *np.abs(box[2:] + jitter[2:])], 2)
            draw = rng.random()
            category = a["category_id"]
            if draw < 0.15:
                category = int(rng.choice(verified[a["image_id"]]))
            elif draw < 0.25:
                category = int(rng.choice(categories))
            segmentation = _shifted_mask(a["segmentation"], jitter[:2], height, width)
            score = round(float(rng.random() * 0.6 + 0.4 / (1 + k)), 2)  # two digits: many ties
            detections.append(
                {"image_id": a["image_id"], "category_id": category, "bbox": moved.tolist(), "score": score}
                | {"segmentation": segmentation}
            )
    rng.shuffle(detections)
    return detections


def _shifted_mask(segmentation, shift, height: int, width: int) -> dict:
    if isinstance(segmentation, dict):
        rle = (
            coco_mask.frPyObjects(segmentation, height, width)
            if isinstance(segmentation["counts"], list)
            else segmentation
        )
        bitmap = np.roll(coco_mask.decode(rle), np.round(shift[::-1]).astype(int), axis=(0, 1))
        return rle_json(bitmap)
    rings = [(np.array(ring).reshape(-1, 2) + shift).ravel().tolist() for ring in segmentation]
    rle = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def synthetic(
    seed: int, images: int = 6, categories: int = 7, per_image: int = 40, side: int = 120
) -> tuple[dict, list]:
    """A small federated split with everything that evaluators treat differently.

    Ties (scores of one digit), detections on negatives, of incompletely annotated and of unverified classes, an image
    without anything, boxes and masks of area 0, `ignore` and `iscrowd` annotations, ids from 0, a category and a
    frequency group without annotations, and areas on both sides of 32 squared.
    """
    rng = np.random.default_rng(seed)
    ids = [3 * k + 2 for k in range(categories)]
    annotated = ids[:-1]
    file = {
        "images": [],
        "categories": [{"id": c, "name": f"c{c}", "frequency": "cf"[k % 2]} for k, c in enumerate(ids)],
        "annotations": [],
    }
    detections = []
    for image_id in rng.permutation(images * 2)[:images].tolist():
        present = rng.choice(annotated, 3, replace=False).tolist()
        absent = [c for c in ids if c not in present]
        image = {"id": image_id, "height": side, "width": side, "neg_category_ids": absent[:2]}
        file["images"].append({**image, "not_exhaustive_category_ids": [present[0]]})
        if len(file["images"]) == images:
            continue  # nothing is annotated or found on the last image
        boxes = [_annotate(file, rng, image_id, present, side) for _ in range(8)]
        for _ in range(per_image):
            detections.append(_detect(rng, image_id, ids, boxes, side))
    return file, detections


def _annotate(file: dict, rng, image_id: int, present: list[int], side: int) -> tuple[int, np.ndarray]:
    x, y = rng.uniform(0, side - 50, 2)
    w, h = rng.uniform(4, 50, 2)
    if rng.random() < 0.1:
        w = 0.0
    elif rng.random() < 0.2:
        w = h = 32.0
    box = np.round([x, y, w, h])
    annotation = {
        "id": len(file["annotations"]),
        "image_id": image_id,
        "category_id": int(rng.choice(present)),
        "bbox": box.tolist(),
        "area": float(box[2] * box[3]),
        "segmentation": box_mask(side, side, box),
    }
    if rng.random() < 0.15:
        annotation["ignore"] = 1
    if rng.random() < 0.15:
        annotation["iscrowd"] = 1
    file["annotations"].append(annotation)
    return annotation["category_id"], box


def _detect(rng, image_id: int, ids: list[int], boxes: list, side: int) -> dict:
    category, box = boxes[rng.integers(len(boxes))]
    if rng.random() < 0.4:
        category = int(rng.choice(ids))
    box = np.round(np.concatenate((box[:2] + rng.normal(0, 4, 2), np.abs(box[2:] + rng.normal(0, 4, 2)))))
    if rng.random() < 0.1:
        box[3] = 0
    return {
        "image_id": image_id,
        "category_id": category,
        "bbox": box.tolist(),
        "score": round(float(rng.random()), 1),
        "segmentation": box_mask(side, side, box),
    }


def two_categories(scores: tuple[float, float, float]) -> tuple[dict, list]:
    """Category 1 (rare): one hit; category 2 (frequent): one hit and one error, with the given scores."""
    box, elsewhere = [10.0, 10.0, 40.0, 40.0], [60.0, 60.0, 30.0, 30.0]
    image = {"height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    annotations = {
        "images": [{"id": 1, **image}],
        "categories": [{"id": 1, "name": "a", "frequency": "r"}, {"id": 2, "name": "b", "frequency": "f"}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": k, "bbox": box, "area": 1600.0, "iscrowd": 0} for k in (1, 2)
        ],
    }
    rows = zip((1, 2, 2), (box, box, elsewhere), scores, strict=True)
    detections = [{"image_id": 1, "category_id": c, "bbox": box, "score": s} for c, box, s in rows]
    return annotations, detections
