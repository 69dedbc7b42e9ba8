"""Boxes, masks, and the records that travel between data, model and evaluation."""

from cvpods_ext.structures.batch import Batch, Target
from cvpods_ext.structures.instances import Detections, Targets
from cvpods_ext.structures.masks import BitMasks, Masks, PolygonMasks

__all__ = ["Batch", "BitMasks", "Detections", "Masks", "PolygonMasks", "Target", "Targets"]
