"""Box predictors and their outputs as the subclasses of old folders use them, over our classifiers and losses.

Shapes: R = RoIs of the batch, Ri = those of one image, D = feature width, K = foreground classes, background is K.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from cvpods_ext.compat.detector_settings import SUPPRESSION
from cvpods_ext.compat.rpn import Box2BoxTransform
from cvpods_ext.compat.structures import Boxes, Instances
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.calibration import Calibration, DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier
from cvpods_ext.modeling.detection.box_head import box_loss, box_predictor, own_deltas
from cvpods_ext.modeling.detection.postprocess import Selection, select
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.structures.boxes import clip_to

InputSize = int | Sequence[int]


class FastRCNNOutputLayers(Calibration):
    """A linear classifier with the box regression layer beside it: (R, D) -> logits (R, K + 1), deltas (R, 4 K)."""

    def __init__(self, input_size: InputSize, num_classes: int, cls_agnostic_bbox_reg: bool, box_dim: int = 4) -> None:
        width = _width(input_size)
        super().__init__(LinearClassifier(width, num_classes))
        _add_regression(self, width, num_classes, cls_agnostic_bbox_reg, box_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Also of maps, which are flattened."""
        features = features.flatten(1)
        return super().forward(features), self.bbox_pred(features)


class CosineFastRCNNOutputLayers(Calibration):
    """The same with a cosine classifier, whose scale is learned, or fixed in the mode "constant"."""

    def __init__(
        self,
        input_size: InputSize,
        num_classes: int,
        cls_agnostic_bbox_reg: bool,
        box_dim: int = 4,
        scale_mode: str = "learn",
        scale_init: float = 20.0,
    ) -> None:
        width = _width(input_size)
        super().__init__(_cosine(width, num_classes, scale_mode, scale_init))
        _add_regression(self, width, num_classes, cls_agnostic_bbox_reg, box_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Also of maps, which are flattened."""
        features = features.flatten(1)
        return super().forward(features), self.bbox_pred(features)


class DisAlignFastRCNNOutputLayers(DisAlign):
    """A linear classifier that DisAlign calibrates."""

    def __init__(self, input_size: InputSize, num_classes: int, cls_agnostic_bbox_reg: bool, box_dim: int = 4) -> None:
        width = _width(input_size)
        super().__init__(LinearClassifier(width, num_classes))
        _add_regression(self, width, num_classes, cls_agnostic_bbox_reg, box_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Also of maps, which are flattened."""
        features = features.flatten(1)
        return super().forward(features), self.bbox_pred(features)


class DisAlignCosineFastRCNNOutputLayers(DisAlign):
    """A cosine classifier that DisAlign calibrates; its confidence reads the feature as it is."""

    def __init__(
        self,
        input_size: InputSize,
        num_classes: int,
        cls_agnostic_bbox_reg: bool,
        box_dim: int = 4,
        scale_mode: str = "learn",
        scale_init: float = 20.0,
    ) -> None:
        width = _width(input_size)
        super().__init__(_cosine(width, num_classes, scale_mode, scale_init))
        _add_regression(self, width, num_classes, cls_agnostic_bbox_reg, box_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Also of maps, which are flattened."""
        features = features.flatten(1)
        return super().forward(features), self.bbox_pred(features)


class FastRCNNOutputs:
    """What a box predictor says of the proposals of a batch: losses in training, instances in a test.

    Subclasses override `softmax_cross_entropy_loss`, `smooth_l1_loss`, `predict_probs` or `predict_boxes`.
    """

    def __init__(
        self,
        box2box_transform: Box2BoxTransform,
        pred_class_logits: Tensor,
        pred_proposal_deltas: Tensor,
        proposals: Sequence[Instances],
        smooth_l1_beta: float = 0.0,
    ) -> None:
        if smooth_l1_beta >= 1e-5:
            raise ConfigError(f"smooth_l1_beta={smooth_l1_beta}: box losses are plain L1 here; set SMOOTH_L1_BETA to 0")
        self.box2box_transform = box2box_transform
        self.num_preds_per_image = [len(one) for one in proposals]
        self.pred_class_logits = pred_class_logits
        self.pred_proposal_deltas = pred_proposal_deltas
        self.smooth_l1_beta = smooth_l1_beta
        self.image_shapes = [one.image_size for one in proposals]
        self.proposals = Boxes.cat([one.proposal_boxes for one in proposals])
        self._no_instances = len(self.proposals) == 0
        if proposals and proposals[0].has("gt_boxes"):
            self.gt_boxes = Boxes.cat([one.gt_boxes for one in proposals])
            self.gt_classes = torch.cat([one.gt_classes for one in proposals])

    def _log_accuracy(self) -> None:
        """Nothing: the engine measures accuracy by frequency group where the loss is one of ours."""

    def softmax_cross_entropy_loss(self) -> Tensor:
        """Mean over all sampled RoIs, background included; 0 and connected to the graph without any."""
        if self._no_instances:
            return 0.0 * self.pred_class_logits.sum()
        self._log_accuracy()
        return SoftmaxCrossEntropy()(self.pred_class_logits, self.gt_classes)

    def smooth_l1_loss(self) -> Tensor:
        """L1 of the own-class deltas of foreground RoIs, divided by all RoIs."""
        return box_loss(
            self.pred_proposal_deltas,
            self.proposals.tensor,
            self.gt_boxes.tensor,
            self.gt_classes,
            self.box2box_transform,
            self.pred_class_logits.shape[1] - 1,
        )

    def losses(self) -> dict[str, Tensor]:
        """loss_cls and loss_box_reg."""
        return {"loss_cls": self.softmax_cross_entropy_loss(), "loss_box_reg": self.smooth_l1_loss()}

    def predict_boxes(self) -> tuple[Tensor, ...]:
        """(Ri, 4 K) of each image, (Ri, 4) where all classes share a box."""
        boxes = self.box2box_transform.apply_deltas(self.pred_proposal_deltas, self.proposals.tensor)
        return boxes.split(self.num_preds_per_image)

    def predict_boxes_for_gt_classes(self) -> tuple[Tensor, ...]:
        """(Ri, 4) of each image: the box of the true class; of background, that of the last class."""
        classes = self.gt_classes.clamp(max=self.pred_class_logits.shape[1] - 2)
        boxes = self.box2box_transform.decode(own_deltas(self.pred_proposal_deltas, classes), self.proposals.tensor)
        return boxes.split(self.num_preds_per_image)

    def predict_probs(self) -> tuple[Tensor, ...]:
        """(Ri, K + 1) of each image, background last."""
        return self.pred_class_logits.float().softmax(dim=1).split(self.num_preds_per_image)

    def inference(
        self, score_thresh: float, nms_thresh: float, nms_type: str, topk_per_image: int
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections of each image with pred_boxes, scores and pred_classes, and the RoI that each came from."""
        selection = Selection(
            score_threshold=score_thresh,
            nms_threshold=nms_thresh,
            limit=topk_per_image if topk_per_image > 0 else None,
            suppression=SUPPRESSION[nms_type],  # type: ignore[arg-type]
        )
        found = [
            _detections(boxes, scores[:, :-1], shape, selection)
            for boxes, scores, shape in zip(self.predict_boxes(), self.predict_probs(), self.image_shapes, strict=True)
        ]
        return [instances for instances, _ in found], [rows for _, rows in found]


def _detections(
    boxes: Tensor, scores: Tensor, shape: tuple[int, int], selection: Selection
) -> tuple[Instances, Tensor]:
    """Boxes (Ri, 4 K) and scores (Ri, K) of an image of (height, width) -> its detections and their RoIs."""
    per_class = boxes.view(len(boxes), -1, 4)

    def decode(rows: Tensor, classes: Tensor) -> Tensor:
        return per_class[rows, classes if per_class.shape[1] > 1 else 0]

    height, width = shape
    limits = boxes.new_tensor([width, height, width, height])
    raw = select(scores, decode, limits, selection)
    instances = Instances(shape, pred_boxes=Boxes(raw.boxes), scores=raw.scores, pred_classes=raw.labels)
    if len(raw.labels) == 0:
        return instances, raw.labels
    candidates = clip_to(per_class[:, raw.labels if per_class.shape[1] > 1 else raw.labels * 0], limits)
    return instances, (candidates - raw.boxes).abs().sum(dim=2).argmin(dim=0)


def _width(input_size: InputSize) -> int:
    return input_size if isinstance(input_size, int) else int(prod(input_size))


def _cosine(width: int, num_classes: int, scale_mode: str, scale_init: float) -> nn.Module:
    classifier = CosineClassifier(width, num_classes, scale=scale_init)
    if scale_mode == "constant":
        del classifier.scale
        classifier.__dict__["scale"] = scale_init  # a number, and no part of the state
    elif scale_mode != "learn":
        raise ConfigError(f"the scale of a cosine classifier is 'learn' or 'constant', got {scale_mode!r}")
    return classifier


def _add_regression(
    predictor: Calibration, width: int, num_classes: int, cls_agnostic_bbox_reg: bool, box_dim: int
) -> None:
    if box_dim != 4:
        raise ConfigError(f"box_dim={box_dim}: rotated boxes are not built here; boxes have 4 numbers")
    box_predictor(predictor, width, 1 if cls_agnostic_bbox_reg else num_classes)
