"""Evaluation of detection and instance segmentation by the rules of LVIS and COCO."""

from cvpods_ext.evaluation.detection.metrics import METRICS

__all__ = ["METRICS"]
