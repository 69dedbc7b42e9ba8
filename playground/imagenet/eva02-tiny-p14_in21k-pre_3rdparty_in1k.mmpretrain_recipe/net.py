"""EVA-02-Ti, 336 px, ImageNet-1k by mmpretrain's training config: mixtures of images, no layer decay."""

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.data.classification import num_classes
from cvpods_ext.modeling.classification.build import eva02_classifier


def build_model(cfg: ClassificationConfig):
    """EVA-02-Ti with a linear head; sizes of inputs are in config.py."""
    return eva02_classifier(cfg, "Ti", num_classes=num_classes(cfg.data, cfg.folder))
