"""The detector class of version 0.1 under its old name; it is in `modeling.detection.rcnn`."""

from cvpods_ext.modeling.detection.rcnn import RCNN

__all__ = ["RCNN"]
