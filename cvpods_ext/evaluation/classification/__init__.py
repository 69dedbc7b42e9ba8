"""Evaluation of image classification; `METRICS` names everything that it measures."""

from cvpods_ext.evaluation.classification.metrics import METRICS

__all__ = ["METRICS"]
