"""Complete DINO detectors from their parts; net.py of an experiment calls `dino`."""

from __future__ import annotations

from cvpods_ext.config.detection import QueryDetector
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.resnet import ResNet
from cvpods_ext.modeling.detr.criterion import Criterion
from cvpods_ext.modeling.detr.denoising import DenoisingSettings, DrawNoise, draw_noise
from cvpods_ext.modeling.detr.losses import QueryLoss, SigmoidFocal
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.modeling.detr.neck import ChannelMapper
from cvpods_ext.modeling.detr.postprocess import BestPairs
from cvpods_ext.modeling.detr.transformer import Dimensions
from cvpods_ext.modeling.necks.pyramid import Pyramid


def dino(
    settings: QueryDetector,
    num_classes: int,
    backbone: Pyramid | ResNet,
    classification_loss: QueryLoss | None = None,
    draw: DrawNoise = draw_noise,
) -> DINO:
    """DINO on all levels of a pyramid, or on the last stages of a ResNet and one level behind them.

    `classification_loss` is the focal loss if left out; `draw` makes the random numbers of the denoising part.
    """
    if isinstance(backbone, Pyramid):
        in_channels = (backbone.channels,) * len(backbone.strides)
        if len(in_channels) != settings.levels:
            raise ConfigError(f"model.levels={settings.levels}, but the pyramid of net.py has {len(in_channels)}")
    else:
        in_channels = backbone.channels[1 - settings.levels :]
    return DINO(
        backbone=backbone,
        neck=ChannelMapper(in_channels, settings.width, settings.levels),
        num_classes=num_classes,
        dimensions=Dimensions(
            width=settings.width,
            heads=settings.heads,
            hidden=settings.hidden,
            encoder_layers=settings.encoder_layers,
            decoder_layers=settings.decoder_layers,
            levels=settings.levels,
            points=settings.points,
            queries=settings.queries,
        ),
        criterion=Criterion(classification_loss or SigmoidFocal()),
        denoising=DenoisingSettings(settings.denoising_number, settings.label_noise, settings.box_noise, draw),
        selection=BestPairs(settings.detections_per_image, settings.score_threshold),
        pixel_mean=settings.pixel_mean,
        pixel_std=settings.pixel_std,
    )
