"""EVA-02-L without a classifier, patches of 16 pixels."""

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.modeling.classification.build import eva02_classifier


def build_model(cfg: ClassificationConfig):
    """EVA-02-L; sizes of inputs are in config.py."""
    return eva02_classifier(cfg, "L", num_classes=0, patch=16)
