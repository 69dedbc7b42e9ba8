"""Metrics of boxes and masks by the rules of LVIS and COCO, with intervals and error types."""
