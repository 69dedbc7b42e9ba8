"""The official evaluators, `lvis` and `pycocotools`, unchanged: slow and large in memory, and the definition of AP."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.masks import require_whole_masks
from cvpods_ext.evaluation.detection.protocol import GROUPS
from cvpods_ext.evaluation.detection.selection import exempt_unusable


def lvis_accumulated(gt: GroundTruth, table: DetectionTable, task: str, max_detections: int) -> dict[str, np.ndarray]:
    """`precision` (T, R, K, A, 1) and `recall` (T, K, A, 1) by the `lvis` package, fed with everything unfiltered."""
    from lvis import LVIS, LVISEval, LVISResults

    class Given(LVIS):
        """The package reads paths only; the content is at hand."""

        def _load_json(self, path: Any) -> Any:
            return path

    gt = exempt_unusable(gt, task)
    rows = _rows(table, task) or [_nothing(gt, task)]
    with _numpy_float(), _quiet():
        truth = Given(_dataset(gt, task))
        evaluation = LVISEval(truth, LVISResults(truth, rows, max_dets=max_detections), task)
        evaluation.evaluate()
        evaluation.accumulate()
    return {name: evaluation.eval[name][..., None] for name in ("precision", "recall")}


def coco_accumulated(gt: GroundTruth, table: DetectionTable, task: str) -> dict[str, np.ndarray]:
    """`precision` (T, R, K, A, M) and `recall` (T, K, A, M) by pycocotools, M = 1, 10, 100 detections per category."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    gt = exempt_unusable(gt, task)
    truth: Any = COCO()
    with _quiet():
        truth.dataset = _dataset(gt, task)
        truth.createIndex()
        rows = _rows(table, task)
        found: Any = truth.loadRes(rows) if rows else COCO()
        if not rows:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation: Any = COCOeval(truth, found, iouType=task)  # type: ignore[arg-type]
        evaluation.evaluate()
        evaluation.accumulate()
    return {"precision": evaluation.eval["precision"], "recall": evaluation.eval["recall"]}


@contextlib.contextmanager
def _numpy_float() -> Iterator[None]:
    """`lvis` 0.5.3 says np.float, which NumPy 1.24 removed; lend it the name for the call."""
    absent = not hasattr(np, "float")
    if absent:
        np.float = float  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if absent:
            del np.float  # type: ignore[attr-defined]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Both packages report each stage, by print and by deprecated calls on their loggers."""
    loggers = [logging.getLogger(name) for name in ("lvis.lvis", "lvis.results", "lvis.eval")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _nothing(gt: GroundTruth, task: str) -> dict[str, Any]:
    """A detection of area 0, which LVIS drops: its package cannot read an empty list."""
    where = {"image_id": int(gt.image_ids[0]), "category_id": int(gt.category_ids[0]), "score": 0.0}
    if task == "bbox":
        return {**where, "bbox": [0.0, 0.0, 0.0, 0.0]}
    import pycocotools.mask

    empty = np.zeros(gt.image_sizes[0], dtype=np.uint8, order="F")
    return {**where, "segmentation": pycocotools.mask.encode(empty)}


def _rows(table: DetectionTable, task: str) -> list[dict[str, Any]]:
    """Result dicts; for segm without a box, since both packages would take the size class from it."""
    if task != "bbox":
        require_whole_masks(table)
    shapes = table.boxes.astype(np.float64).tolist() if task == "bbox" else table.rles() if len(table) else []
    name = "bbox" if task == "bbox" else "segmentation"
    columns = zip(table.image_ids.tolist(), table.category_ids.tolist(), table.scores.tolist(), shapes, strict=True)
    return [{"image_id": i, "category_id": c, "score": s, name: shape} for i, c, s, shape in columns]


def _dataset(gt: GroundTruth, task: str) -> dict[str, Any]:
    """The annotation file as dicts, annotations renumbered from 1 (a match with id 0 would not count)."""
    images = [
        {"id": i, "height": h, "width": w, "neg_category_ids": set(), "not_exhaustive_category_ids": set()}
        for i, (h, w) in zip(gt.image_ids.tolist(), gt.image_sizes.tolist(), strict=True)
    ]
    for name, keys in (("neg_category_ids", gt.negatives), ("not_exhaustive_category_ids", gt.not_exhaustive)):
        for image, category in zip(*(part.tolist() for part in np.divmod(keys, gt.num_categories)), strict=True):
            images[image][name].add(int(gt.category_ids[category]))
    categories = [
        {"id": i, "name": name, "frequency": GROUPS[group]}
        for i, name, group in zip(gt.category_ids.tolist(), gt.category_names, gt.frequency, strict=True)
    ]
    return {"images": images, "categories": categories, "annotations": _annotations(gt, task)}


def _annotations(gt: GroundTruth, task: str) -> list[dict[str, Any]]:
    annotations = []
    masks = gt.rle_dicts(np.arange(len(gt.images))) if task == "segm" else []
    boxes = np.nan_to_num(gt.boxes).tolist()  # an object whose mask is evaluated may have none
    for k in range(len(gt.images)):
        annotation: dict[str, Any] = {
            "id": k + 1,
            "image_id": int(gt.image_ids[gt.images[k]]),
            "category_id": int(gt.category_ids[gt.categories[k]]),
            "bbox": boxes[k],
            "area": float(gt.areas[k]),
            "iscrowd": int(gt.crowd[k]),
            "ignore": int(gt.ignore[k]),
        }
        if task == "segm":
            annotation["segmentation"] = masks[k]
        annotations.append(annotation)
    return annotations
