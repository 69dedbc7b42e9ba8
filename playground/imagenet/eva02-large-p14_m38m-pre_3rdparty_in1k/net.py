"""EVA-02-L, 448 px, ImageNet-1k (the authors' `eva02_L_pt_m38m_ft_in1k_p14`)."""

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.data.classification import num_classes
from cvpods_ext.modeling.classification.build import eva02_classifier


def build_model(cfg: ClassificationConfig):
    """EVA-02-L with a linear head; sizes of inputs are in config.py."""
    return eva02_classifier(cfg, "L", num_classes=num_classes(cfg.data, cfg.folder))
