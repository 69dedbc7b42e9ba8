"""Boxes, masks, and the two records that travel between data, model and evaluation."""

from cvpods_ext.structures.instances import Batch, Detections, Targets
from cvpods_ext.structures.masks import BitMasks, Masks, PolygonMasks

__all__ = ["Batch", "BitMasks", "Detections", "Masks", "PolygonMasks", "Targets"]
