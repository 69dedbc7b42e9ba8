"""Typed experiment configs: a frozen schema, changes as overrides, folders that become experiments."""

from cvpods_ext.config.decay import Cosine, Decay, EpochCosine, MultiStep, Polynomial, Steps
from cvpods_ext.config.detection import DetectionConfig, DetectionData, DetectionTest, Detector
from cvpods_ext.config.override import apply_overrides, changes, flatten, override
from cvpods_ext.config.schema import Config, Data, DatasetFiles, Model, Schedule, Test

__all__ = [
    "Config",
    "Cosine",
    "Data",
    "DatasetFiles",
    "Decay",
    "DetectionConfig",
    "DetectionData",
    "DetectionTest",
    "Detector",
    "EpochCosine",
    "Model",
    "MultiStep",
    "Polynomial",
    "Schedule",
    "Steps",
    "Test",
    "apply_overrides",
    "changes",
    "flatten",
    "override",
]
