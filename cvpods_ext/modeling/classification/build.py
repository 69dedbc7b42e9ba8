"""A complete image classifier from its config; net.py of an experiment calls it.

Shapes: K = classes.
"""

from __future__ import annotations

from torch import nn

from cvpods_ext.config.classification import ClassificationConfig, Classifier
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.eva02 import Size, size_of
from cvpods_ext.modeling.classification.backbone import eva02_features
from cvpods_ext.modeling.classification.classifier import ImageClassifier
from cvpods_ext.modeling.classification.heads import LinearHead
from cvpods_ext.modeling.classification.losses import ImageLoss, SmoothedCrossEntropy
from cvpods_ext.modeling.classification.mixing import Mixing

NORM_EPS = 1e-6  # of the authors' code and timm; mmpretrain's is 1e-5


def eva02_classifier(
    cfg: ClassificationConfig,
    size: str | Size,
    *,
    num_classes: int,
    patch: int = 14,
    head: nn.Module | None = None,
    loss: ImageLoss | None = None,
    key_bias: bool = False,
) -> ImageClassifier:
    """EVA-02 of a published size (Ti, S, B, L) with a linear head for K classes unless `head` is given.

    `num_classes` 0 gives a network without a head, which extracts features. `key_bias` as in `eva02_features`.
    """
    size = size_of(size) if isinstance(size, str) else size
    return image_classifier(
        cfg.model,
        backbone=eva02_features(
            size, image_side=cfg.data.image_side, patch=patch, drop_path=cfg.model.drop_path, key_bias=key_bias
        ),
        width=size.width,
        num_classes=num_classes,
        head=head,
        loss=loss,
        fc_norm=nn.LayerNorm(size.width, eps=NORM_EPS) if num_classes else nn.Identity(),
    )


def image_classifier(
    model: Classifier,
    *,
    backbone: nn.Module,
    width: int,
    num_classes: int,
    head: nn.Module | None = None,
    loss: ImageLoss | None = None,
    fc_norm: nn.Module | None = None,
) -> ImageClassifier:
    """Any backbone that gives (B, `width`) features, with a linear head and cross entropy unless others are given.

    ConfigError for a loss that smooths labels by another amount than `model.smoothing` says.
    """
    loss = loss or SmoothedCrossEntropy(model.smoothing)
    if num_classes and loss.smoothing != model.smoothing:
        raise ConfigError(
            f"model.smoothing={model.smoothing} has no effect on this {type(loss).__name__}, which smooths labels by "
            f"{loss.smoothing}: set model.smoothing={loss.smoothing}, or pass cfg.model.smoothing to a loss"
        )
    return ImageClassifier(
        backbone=backbone,
        fc_norm=fc_norm or nn.Identity(),
        head=(head or LinearHead(width, num_classes)) if num_classes else None,
        loss=loss,
        pixel_statistics=(model.pixel_mean, model.pixel_std),
        mixing=Mixing(num_classes, mixup=model.mixup, cutmix=model.cutmix) if num_classes else None,
    )
