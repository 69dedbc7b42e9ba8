"""Weights of any origin: find or fetch the file, read it safely, translate its names, load it, say what happened."""

from cvpods_ext.modeling.weights.fetch import obtain
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.locate import locate
from cvpods_ext.modeling.weights.reader import Checkpoint, read
from cvpods_ext.modeling.weights.report import LoadReport

__all__ = ["Checkpoint", "LoadReport", "load_into", "locate", "obtain", "read"]
