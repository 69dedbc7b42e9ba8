"""Evaluation of semantic segmentation; `METRICS` names everything that it measures."""

from cvpods_ext.evaluation.segmentation.metrics import METRICS

__all__ = ["METRICS"]
