"""A complete UPerNet from its config and a backbone; net.py of an experiment calls it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cvpods_ext.config.segmentation import SegmentationConfig, SegmentationData, Segmenter
from cvpods_ext.modeling.segmentation.heads import FCNHead, UPerHead
from cvpods_ext.modeling.segmentation.inference import TestScales
from cvpods_ext.modeling.segmentation.losses import PixelCrossEntropy
from cvpods_ext.modeling.segmentation.segmentor import AUXILIARY_MAP, Segmentor


def upernet(
    cfg: SegmentationConfig,
    *,
    backbone: nn.Module,
    in_channels: Sequence[int],
    num_classes: int,
    loss: nn.Module | None = None,
    classifier: nn.Module | None = None,
) -> Segmentor:
    """UPerNet on the four maps of `backbone`, which have `in_channels`, with an FCN head that helps in training.

    `loss` is `PixelCrossEntropy` if None, `classifier` the 1 x 1 convolution of the decoder.
    """
    model = cfg.model
    return Segmentor(
        backbone=backbone,
        decode_head=UPerHead(in_channels, model.channels, num_classes, classifier=classifier),
        auxiliary_head=FCNHead(in_channels[AUXILIARY_MAP], model.auxiliary_channels, num_classes),
        loss=loss or PixelCrossEntropy(),
        scales=test_scales(cfg.data, model),
        pixel_statistics=(model.pixel_mean, model.pixel_std),
        auxiliary_weight=model.auxiliary_weight,
    )


def test_scales(data: SegmentationData, model: Segmenter) -> TestScales:
    """How test images are looked at; windows are as large as training crops."""
    return TestScales(
        short=model.test_short,
        long=model.test_long,
        crop=data.crop_side,
        stride=model.test_stride,
        ratios=model.test_ratios,
        flip=model.test_flip,
        mode=model.test_mode,
    )
