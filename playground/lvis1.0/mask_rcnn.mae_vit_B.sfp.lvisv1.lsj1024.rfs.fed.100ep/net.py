"""ViT-B under a simple pyramid, heads with the federated sigmoid loss."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.backbones.vit import mae_vit
from cvpods_ext.modeling.classifiers import FederatedClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    counts = image_counts(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=len(counts),
        backbone=SimplePyramid(mae_vit(image_side=cfg.data.lsj_side)),
        box=BoxBranch(
            classifier=FederatedClassifier(cfg.model.box_features, counts),
            loss=FederatedLoss(counts),
        ),
    )
