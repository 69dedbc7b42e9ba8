"""One stage of box classification and regression; R-CNN has one, Cascade R-CNN three.

Shapes: R = RoIs of the batch, D = feature width, C = foreground classes, P = pairs of RoI and class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvpods_ext.modeling.calibration import Calibration
from cvpods_ext.modeling.detection.box_coding import BoxCoder
from cvpods_ext.modeling.detection.box_head import BoxHead, box_loss, own_deltas
from cvpods_ext.modeling.detection.roi_sampling import RoIs
from cvpods_ext.modeling.layers import trains
from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext
from cvpods_ext.modeling.posthoc import check_combination
from cvpods_ext.structures import Targets


@dataclass(frozen=True)
class BoxStage:
    """The modules of one stage (which the heads own, under their published names) and what they do together."""

    head: BoxHead
    predictor: Calibration
    loss: ClassificationLoss
    coder: BoxCoder
    num_classes: int

    def __post_init__(self) -> None:
        check_combination(self.predictor, self.loss)

    def train(
        self,
        features: Sequence[Tensor],
        rois: RoIs,
        targets: Sequence[Targets],
        *,
        trunk_trains: bool,
        refine: bool = False,
        gradient_scale: float = 1.0,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses that reach a parameter that trains, and the boxes (R, 4), refined without gradient if asked for."""
        below = trunk_trains or trains(self.head)
        regression = below or trains(self.predictor.bbox_pred)
        classification = below or self._classifier_trains()
        losses: dict[str, Tensor] = {}
        if not (regression or classification or refine):
            return losses, rois.boxes
        pooled = self.head(features, rois.boxes, rois.image, gradient_scale)
        logits = self.predictor(pooled) if classification or (refine and self._class_specific) else None
        if classification and logits is not None:
            losses["loss_cls"] = self.loss(logits, rois.labels, LossContext(rois.image, targets))
        if not (regression or refine):
            return losses, rois.boxes
        deltas = self.predictor.bbox_pred(pooled)
        if regression:
            losses["loss_box_reg"] = box_loss(
                deltas, rois.boxes, rois.truth_boxes, rois.labels, self.coder, self.num_classes
            )
        if not refine:
            return losses, rois.boxes
        classes = rois.labels if logits is None else self._best_or_true(logits, rois.labels)
        return losses, self.coder.decode(own_deltas(deltas.detach(), classes), rois.boxes)

    def classify(self, features: Sequence[Tensor], boxes: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (R, 4) of images (R,) -> pooled features (R, D) and class scores (R, C)."""
        pooled = self.head(features, boxes, image)
        return pooled, self.loss.scores(self.predictor(pooled).float())

    def decode(self, pooled: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
        """Features (P, D), boxes (P, 4), classes (P,) -> refined boxes (P, 4).

        Only the deltas of the wanted class are computed, not those of all C.
        """
        layer = self.predictor.bbox_pred
        if self._class_specific:
            weight = layer.weight.view(-1, 4, layer.in_features)[classes]
            deltas = torch.bmm(weight, pooled[..., None])[..., 0] + layer.bias.view(-1, 4)[classes]
        else:
            deltas = layer(pooled)
        return self.coder.decode(deltas, boxes)

    @property
    def _class_specific(self) -> bool:
        return self.predictor.bbox_pred.out_features > 4

    def _classifier_trains(self) -> bool:
        return any(
            parameter.requires_grad
            for name, parameter in self.predictor.named_parameters()
            if not name.startswith("bbox_pred.")
        )

    def _best_or_true(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The class whose deltas move a box on: the true one of a foreground row, else the best-scoring one."""
        with torch.no_grad():
            best = self.loss.scores(logits.float()).argmax(dim=1)
            return torch.where(labels < self.num_classes, labels, best)
