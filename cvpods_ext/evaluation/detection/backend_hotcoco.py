"""Evaluation by hotcoco, compiled code by another author: a fast second opinion on our own matching."""

from __future__ import annotations

from typing import Any

import hotcoco
import numpy as np

from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.iou import detection_shapes
from cvpods_ext.evaluation.detection.protocol import GROUPS
from cvpods_ext.evaluation.detection.selection import Limit, select_annotations, select_detections


def accumulated(gt: GroundTruth, table: DetectionTable, task: str, limit: Limit) -> dict[str, np.ndarray]:
    """`precision` (T, R, K, A, M) and `recall` (T, K, A, M), M settings of detections per image (COCO: 1, 10, 100).

    What is evaluated is selected here, and areas are given, because hotcoco differs from the official packages there.
    """
    gt = select_annotations(gt, task)
    table = table.take(select_detections(gt, table, limit))
    areas = detection_shapes(gt, table, task).areas
    if gt.federated:
        table, areas = table.take(np.flatnonzero(areas > 0)), areas[areas > 0]
    truth = _dataset(gt, task)
    rows = np.column_stack((table.image_ids, table.boxes, table.scores, table.category_ids)).astype(np.float64)
    if task == "segm":
        masks: list[Any] = table.rles() if len(table) else []
        found = truth.load_res(rows, segmentation=masks)
        if len(table):
            found.update_anns(ids=np.arange(1, len(table) + 1), area=areas)
    else:
        found = truth.load_res(rows)
    if gt.federated:
        found = found.cap_detections_per_image(None)  # the cap was applied before; hotcoco's own is 300
    evaluation = hotcoco.COCOeval(truth, found, task, lvis_style=gt.federated)
    evaluation.evaluate()
    evaluation.accumulate()
    result = evaluation.eval
    assert result is not None, "accumulate() sets eval"
    return {"precision": result["precision"], "recall": result["recall"]}


def _dataset(gt: GroundTruth, task: str) -> hotcoco.COCO:
    """The annotations renumbered from 1: a matched annotation of id 0 would count as unmatched."""
    images = [
        {
            "id": image_id,
            "height": size[0],
            "width": size[1],
            "neg_category_ids": no,
            "not_exhaustive_category_ids": part,
        }
        for image_id, size, no, part in zip(
            gt.image_ids.tolist(),
            gt.image_sizes.tolist(),
            _ids_per_image(gt, gt.negatives),
            _ids_per_image(gt, gt.not_exhaustive),
            strict=True,
        )
    ]
    categories = [
        {"id": category_id, "name": name, "frequency": GROUPS[group]}
        for category_id, name, group in zip(gt.category_ids.tolist(), gt.category_names, gt.frequency, strict=True)
    ]
    columns: dict[str, Any] = {"segmentation": gt.rle_dicts(np.arange(len(gt.images)))} if task == "segm" else {}
    return hotcoco.COCO.from_arrays(
        images,
        categories,
        gt.image_ids[gt.images],
        gt.category_ids[gt.categories],
        gt.boxes if task == "bbox" else np.nan_to_num(gt.boxes),
        ids=np.arange(1, len(gt.images) + 1),
        area=gt.areas,
        iscrowd=gt.crowd.astype(np.int64),
        **columns,
    )


def _ids_per_image(gt: GroundTruth, keys: np.ndarray) -> list[list[int]]:
    images, categories = np.divmod(keys, gt.num_categories)
    bounds = np.searchsorted(images, np.arange(len(gt.image_ids) + 1))
    ids = gt.category_ids[categories].tolist()
    return [ids[bounds[i] : bounds[i + 1]] for i in range(len(gt.image_ids))]
