"""Complete DINO detectors from their parts; net.py of an experiment calls `dino`."""

from __future__ import annotations

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.backbones.resnet import ResNet
from cvpods_ext.modeling.detr.criterion import Criterion
from cvpods_ext.modeling.detr.denoising import DenoisingSettings
from cvpods_ext.modeling.detr.losses import QueryLoss, SigmoidFocal
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.modeling.detr.neck import ChannelMapper
from cvpods_ext.modeling.detr.postprocess import BestPairs
from cvpods_ext.modeling.detr.transformer import Dimensions
from cvpods_ext.modeling.necks.pyramid import Pyramid

PUBLISHED = Dimensions()
PUBLISHED_DENOISING = DenoisingSettings()


def dino(
    model: Detector,
    *,
    num_classes: int,
    backbone: Pyramid | ResNet,
    classification_loss: QueryLoss | None = None,
    dimensions: Dimensions = PUBLISHED,
    denoising: DenoisingSettings = PUBLISHED_DENOISING,
) -> DINO:
    """DINO on all levels of a pyramid, or on the last three stages of a ResNet and a level behind them.

    `classification_loss` is the focal loss if left out.
    """
    if isinstance(backbone, Pyramid):
        in_channels = (backbone.channels,) * len(backbone.strides)
    else:
        in_channels = backbone.channels[-(dimensions.levels - 1) :]
    return DINO(
        backbone=backbone,
        neck=ChannelMapper(in_channels, dimensions.width, dimensions.levels),
        num_classes=num_classes,
        dimensions=dimensions,
        criterion=Criterion(classification_loss or SigmoidFocal()),
        denoising=denoising,
        selection=BestPairs(model.detections_per_image, model.score_threshold),
        pixel_mean=model.pixel_mean,
        pixel_std=model.pixel_std,
    )
