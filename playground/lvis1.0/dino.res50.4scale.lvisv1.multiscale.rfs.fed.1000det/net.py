"""ResNet-50, DINO with the federated focal loss."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.backbones.resnet import resnet
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.losses import FederatedFocal
from cvpods_ext.modeling.detr.model import DINO


def build_model(cfg: DetectionConfig) -> DINO:
    """Build the detector that config.py trains."""
    counts = image_counts(cfg.data, cfg.folder)
    return dino(
        cfg.model,
        num_classes=len(counts),
        backbone=resnet(50, stride_in_1x1=False, freeze_at=1),
        classification_loss=FederatedFocal(counts),
    )
