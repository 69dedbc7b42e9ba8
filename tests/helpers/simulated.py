"""Detections of known quality on a synthetic set: objects are found, confused, misplaced or missed at given rates."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask

from cvpods_ext.data.synthetic.write import SyntheticFiles
from cvpods_ext.evaluation.detection.coco_json import import_json


@dataclass(frozen=True)
class Skill:
    """Probabilities by frequency group r, c, f of finding an object; then of naming it right."""

    found: tuple[float, float, float] = (0.6, 0.75, 0.9)
    named: tuple[float, float, float] = (0.4, 0.7, 0.95)
    jitter: float = 2.0  # pixels
    background: float = 0.6  # false positives an image


def simulate(files: SyntheticFiles, folder: Path, skill: Skill, seed: int) -> Path:
    """Write shards to `folder`, made from the validation annotations with masks as RLE."""
    document = json.loads(files.val.read_text())
    rng = np.random.default_rng(seed)
    group = {row["id"]: "rcf".index(row["frequency"]) for row in document["categories"]}
    size = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    ids = sorted(group)
    results = []
    for annotation in document["annotations"]:
        kind = group[annotation["category_id"]]
        if rng.random() > skill.found[kind]:
            continue
        right = rng.random() < skill.named[kind]
        category = annotation["category_id"] if right else int(rng.choice(ids))
        shift = rng.normal(0, skill.jitter, size=2)
        score = float(np.clip(rng.normal(0.75 if right else 0.55, 0.15), 0.01, 0.99))
        polygons = [(np.array(ring).reshape(-1, 2) + shift).reshape(-1).tolist() for ring in annotation["segmentation"]]
        results.append(_result(annotation["image_id"], category, score, polygons, size[annotation["image_id"]]))
    for image_id, (height, width) in size.items():
        for _ in range(rng.poisson(skill.background)):
            x, y, side = rng.uniform(0, width - 20), rng.uniform(0, height - 20), rng.uniform(10, 20)
            square = [[x, y, x + side, y, x + side, y + side, x, y + side]]
            results.append(
                _result(image_id, int(rng.choice(ids)), float(rng.uniform(0.01, 0.5)), square, (height, width))
            )
    folder.mkdir(parents=True)
    path = folder / "results_list.json"
    path.write_text(json.dumps(results))
    import_json(path, folder)
    return folder


def _result(image_id, category_id, score, polygons, size):
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    box = coco_mask.toBbox(rle).tolist()
    counts = {"size": list(size), "counts": rle["counts"].decode("ascii")}
    return {"image_id": image_id, "category_id": category_id, "score": score, "bbox": box, "segmentation": counts}
