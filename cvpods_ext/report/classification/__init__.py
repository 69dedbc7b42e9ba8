"""Intervals, confusions and pictures of errors of image classification."""

from cvpods_ext.report.classification.report import ClassificationReport

REPORT = ClassificationReport()

__all__ = ["REPORT"]
