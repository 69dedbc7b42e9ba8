"""Image classification as old folders build it: a network by name, a loss that may be replaced, and DisAlign's layer.

Shapes: B = images, D = feature width, K = classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.compat.backbone import ShapeSpec
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.classification import heads
from cvpods_ext.modeling.classification.classifier import ImageModel
from cvpods_ext.modeling.losses.grw import grw_weights
from cvpods_ext.structures import Batch


class Classification(ImageModel):
    """`network` of `cfg.build_backbone`, whose output "linear" are the logits, and `loss_evaluator` of logits, labels.

    Batches and results are those of this package. `during_a_step` and `data_parent` as of `rcnn.GeneralizedRCNN`.
    """

    def __init__(self, cfg: AttributeDict) -> None:
        build = cfg.get("build_backbone")
        if not callable(build):
            raise ConfigError("build_model of net.py must set cfg.build_backbone to a function before Classification")
        mean, std = ([255 * value for value in cfg.MODEL[name]] for name in ("PIXEL_MEAN", "PIXEL_STD"))
        super().__init__((mean, std))
        self.network: Any = build(cfg, ShapeSpec(channels=len(mean)))
        self.loss_evaluator: nn.Module = nn.CrossEntropyLoss()
        self.changed_settings: list[str] = []  # by net.py, of the config that it was given
        self.data_parent: object = None
        self.during_a_step: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """As of our own classifiers."""
        with self.during_a_step():
            return super().losses(batch)

    def predict(self, batch: Batch) -> Tensor:
        """As of our own classifiers; the softmax that cvpods leaves to its evaluator."""
        with self.during_a_step():
            return super().predict(batch)

    def features(self, images: Tensor) -> Tensor:
        """What `network.linear` sees. ConfigError for a network of the folder's own."""
        if not hasattr(self.network, "pooled"):
            raise ConfigError(f"a {type(self.network).__name__} of the folder's own tells no features apart")
        return self.network.pooled(images)

    def logits(self, images: Tensor) -> Tensor:
        """The output "linear"; the output itself of a network that gives one tensor."""
        found = self.network(images)
        return found["linear"] if isinstance(found, dict) else found

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As `loss_evaluator` says."""
        return self.loss_evaluator(logits.float(), targets)


class DisAlignLinear(heads.DisAlignLinear):
    """DisAlign on a linear classifier, in its form for classification."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        if not bias:
            raise ConfigError("DisAlignLinear(bias=False): the classifier here has a bias")
        super().__init__(in_features, out_features)


class GRWCrossEntropyLoss(nn.Module):
    """Cross entropy in which rare classes weigh more, without background; the weights are part of the state.

    `num_samples_list` (K,) are training images of each class, `exp_scale` is the exponent of their shares.
    """

    weight: Tensor

    def __init__(self, num_samples_list: Sequence[float] = (), num_classes: int = 1000, exp_scale: float = 0.7) -> None:
        super().__init__()
        counts = torch.as_tensor(num_samples_list, dtype=torch.float64)
        if len(counts) != num_classes:
            raise ConfigError(f"GRWCrossEntropyLoss: {len(counts)} numbers of images for {num_classes} classes")
        self.register_buffer("weight", grw_weights(counts, exp_scale))

    def forward(self, pred_class_logits: Tensor, gt_classes: Tensor) -> Tensor:
        """(B, K), (B,) -> scalar, the mean over the weights of the labels."""
        return F.cross_entropy(pred_class_logits, gt_classes, weight=self.weight)
