"""Intervals, curves and pictures of errors of detection and instance segmentation."""

from cvpods_ext.report.detection.report import DetectionReport

REPORT = DetectionReport()

__all__ = ["REPORT"]
