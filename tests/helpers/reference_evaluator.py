"""LVIS and COCO AP from their definitions, in plain loops: slow, and written without looking at any evaluator's code.

An object is matched by at most one detection. Detections of a category are taken best first; each takes the free
object with the highest IoU at or above the threshold, preferring objects that count over ignored ones. A detection
that took an ignored object, or took nothing and may not be judged (outside the area range, or its category is
incompletely annotated on the image), is left out. Precision at recall r is the best precision at any recall >= r.
"""

from collections import defaultdict

import numpy as np
import pycocotools.mask as coco_mask

THRESHOLDS = [0.5 + 0.05 * k for k in range(10)]
RECALLS = np.linspace(0, 1, 101)  # some lie a rounding error above their hundredth, which the official tools keep
RANGES = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def evaluate(annotations: dict, detections: list[dict], task: str, max_detections: int = 300) -> dict:
    """LVIS metrics in percent; None where a group has no object that counts."""
    objects = _objects(annotations, task)
    candidates = _verified(annotations, objects, _best(detections, max_detections), task)
    partial = {image["id"]: set(image["not_exhaustive_category_ids"]) for image in annotations["images"]}
    precision, recall = {}, {}
    for category in annotations["categories"]:
        c = category["id"]
        for area in RANGES:
            for t in THRESHOLDS:
                key = (c, area, round(t, 2))
                precision[key], recall[key] = _curve(objects[c], candidates[c], area, t, partial, c, task)
    return _table(annotations, precision, recall)


def _objects(annotations, task):
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    objects = defaultdict(lambda: defaultdict(list))
    for a in annotations["annotations"]:
        if a["area"] > 0:
            shape = a["bbox"] if task == "bbox" else _bitmap(a["segmentation"], *sizes[a["image_id"]])
            record = {"shape": shape, "area": a["area"], "ignore": bool(a.get("ignore", 0))}
            objects[a["category_id"]][a["image_id"]].append(record)
    return objects


def _bitmap(segmentation, height, width):
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(segmentation).astype(bool)


def _best(detections, limit):
    by_image = defaultdict(list)
    for d in detections:
        by_image[d["image_id"]].append(d)
    return {image: sorted(found, key=lambda d: -d["score"])[:limit] for image, found in by_image.items()}


def _verified(annotations, objects, best, task):
    candidates = defaultdict(lambda: defaultdict(list))
    negatives = {image["id"]: set(image["neg_category_ids"]) for image in annotations["images"]}
    for image_id, found in best.items():
        for d in found:
            c = d["category_id"]
            if c not in negatives[image_id] and not objects[c].get(image_id):
                continue
            shape = d["bbox"] if task == "bbox" else _bitmap(d["segmentation"], 0, 0)
            area = d["bbox"][2] * d["bbox"][3] if task == "bbox" else int(shape.sum())
            if area > 0:
                candidates[c][image_id].append({"shape": shape, "area": area, "score": d["score"]})
    return candidates


def _iou(a, b, task):
    if task == "segm":
        return (a & b).sum() / (a | b).sum() if (a & b).any() else 0.0
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def _curve(objects, candidates, area, threshold, partial, category, task):
    low, high = RANGES[area]
    judged, total = [], 0
    for image_id in sorted({*objects, *candidates}):
        free = []
        for o in objects.get(image_id, ()):
            counts = not o["ignore"] and low <= o["area"] <= high
            total += counts
            free.append([o, counts, True])
        for d in candidates.get(image_id, ()):
            best = None
            for entry in free:
                o, counts, available = entry
                iou = _iou(d["shape"], o["shape"], task)
                if not available or iou < threshold - 1e-12:
                    continue
                # a later object of the same IoU wins: such a tie leaves the set of matched objects ambiguous, and the
                # official tools resolve it so
                if best is None or (counts, iou) >= best[0]:
                    best = ((counts, iou), entry)
            if best is not None:
                best[1][2] = False
                if best[1][1]:
                    judged.append((d["score"], True))
            elif low <= d["area"] <= high and category not in partial[image_id]:
                judged.append((d["score"], False))
    if total == 0:
        return None, None
    judged.sort(key=lambda pair: -pair[0])
    points, hits = [], 0
    for k, (_, right) in enumerate(judged, start=1):
        hits += right
        points.append((hits / total, hits / k))
    at_recall = [max((p for r, p in points if r >= wanted), default=0.0) for wanted in RECALLS]
    return at_recall, hits / total


def _table(annotations, precision, recall):
    groups = {c["id"]: c["frequency"] for c in annotations["categories"]}

    def mean(values, keep):
        kept = [np.mean(v) for key, v in values.items() if v is not None and keep(*key)]
        return 100 * float(np.mean(kept)) if kept else None

    metrics = {
        "AP": mean(precision, lambda c, area, t: area == ""),
        "AP50": mean(precision, lambda c, area, t: area == "" and t == 0.5),
        "AP75": mean(precision, lambda c, area, t: area == "" and t == 0.75),
    }
    for group in "rcf":
        metrics[f"AP{group}"] = mean(precision, lambda c, area, t, g=group: area == "" and groups[c] == g)
    for size in ("", "s", "m", "l"):
        metrics[f"AR{size}"] = mean(recall, lambda c, area, t, s=size: area == s)
        metrics[f"AP{size}"] = mean(precision, lambda c, area, t, s=size: area == s)
    return metrics
