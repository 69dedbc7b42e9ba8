"""Intervals, confusions and pictures of errors of semantic segmentation."""

from cvpods_ext.report.segmentation.report import SegmentationReport

REPORT = SegmentationReport()

__all__ = ["REPORT"]
