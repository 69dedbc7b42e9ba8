"""COCO's protocol: every category verified on every image, crowds ignored, 100 detections per image and category."""

from __future__ import annotations

import numpy as np

from cvpods_ext.evaluation import fast, official
from cvpods_ext.evaluation.detections import DetectionTable
from cvpods_ext.evaluation.ground_truth import GroundTruth
from cvpods_ext.evaluation.masks import mask_areas
from cvpods_ext.evaluation.protocol import Curves, Metrics, mean_where_annotated, summarise

MAX_DETECTIONS = 100


def metrics(gt: GroundTruth, table: DetectionTable, task: str, official_evaluator: bool) -> Metrics:
    """LVIS's thirteen numbers and AR1, AR10: recall when only 1 or 10 detections per image and category count."""
    if official_evaluator:
        result = official.coco_accumulated(gt, table, task)
    else:
        sizes = gt.image_sizes[np.searchsorted(gt.image_ids, table.image_ids)]
        areas = mask_areas(table, sizes) if task == "segm" else np.zeros(0)
        result = fast.accumulated(gt, table, areas, task, federated=False)
    precision, recall = result["precision"], result["recall"]
    summary = summarise(Curves(precision[..., -1], recall[..., -1]), gt.frequency)
    summary["AR1"] = mean_where_annotated(recall[:, :, 0, 0])
    summary["AR10"] = mean_where_annotated(recall[:, :, 0, 1])
    return summary
