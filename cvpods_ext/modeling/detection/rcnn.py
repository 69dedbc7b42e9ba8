"""Two-stage detector: pyramid, proposals, heads (Faster and Mask R-CNN, plain or cascaded).

Shapes: N = images, H, W = rows and columns of the padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.detection.anchor_matching import pad_targets
from cvpods_ext.modeling.detection.cascade import CascadeRoIHeads
from cvpods_ext.modeling.detection.postprocess import RawDetections, finish_all
from cvpods_ext.modeling.detection.roi_heads import RoIHeads
from cvpods_ext.modeling.detection.rpn import RPN
from cvpods_ext.modeling.images import normalize_and_pad
from cvpods_ext.modeling.layers import trains
from cvpods_ext.modeling.necks.pyramid import Pyramid
from cvpods_ext.structures import Batch, Detections


class RCNN(nn.Module):
    """Images in, losses or detections out; normalises and pads by itself.

    Parts that do not train cost no loss and no gradient: with only the box predictor trainable there is neither an RPN
    loss nor a mask branch. With `float32_heads` autocast covers the backbone only.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Pyramid,
        proposal_generator: RPN,
        roi_heads: RoIHeads | CascadeRoIHeads,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        float32_heads: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.float32_heads = float32_heads
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[Detections]:
        """Scalar losses by name in training, else the detections of every image in its original pixels."""
        if self.training:
            return self.losses(batch)
        return finish_all(self.detect(batch), batch.targets)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """loss_cls, loss_box_reg, loss_mask, loss_rpn_cls, loss_rpn_loc, without those that reach nothing trainable."""
        images, image_sizes = self.preprocess(batch.images)
        features = self.backbone(images)
        truth = pad_targets(batch.targets)
        trunk_trains = trains(self.backbone)
        rpn_trains = trunk_trains or trains(self.proposal_generator)
        with self._precision_of_heads(images.device):
            features = self._for_heads(features)
            proposals, rpn_losses = self.proposal_generator(features, image_sizes, truth if rpn_trains else None)
            losses = self.roi_heads.losses(
                features, proposals, image_sizes, truth, batch.targets, trunk_trains=trunk_trains
            )
        return losses | rpn_losses

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[RawDetections]:
        """Detections in network pixels, still on the device; `postprocess.finish` makes them final, in any thread."""
        images, image_sizes = self.preprocess(batch.images)
        features = self.backbone(images)
        with self._precision_of_heads(images.device):
            features = self._for_heads(features)
            proposals, _ = self.proposal_generator(features, image_sizes)
            return self.roi_heads.detect(features, proposals, image_sizes)

    @torch.no_grad()
    def accumulate_statistics(self, batch: Batch) -> None:
        """Score all proposals, for calibrations that are fitted to their logits; nothing is selected."""
        images, image_sizes = self.preprocess(batch.images)
        features = self.backbone(images)
        with self._precision_of_heads(images.device):
            features = self._for_heads(features)
            proposals, _ = self.proposal_generator(features, image_sizes)
            self.roi_heads.score(features, proposals, image_sizes)

    def _precision_of_heads(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, enabled=False) if self.float32_heads else nullcontext()

    def _for_heads(self, features: list[Tensor]) -> list[Tensor]:
        return [level.float() for level in features] if self.float32_heads else features

    def preprocess(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images (3, h, w) -> normalised batch (N, 3, H, W), zero right of and below each image.

        Also returns the image sizes that bound their boxes, (N, 4) float32 = width, height, width, height.
        """
        return normalize_and_pad(images, self.pixel_mean, self.pixel_std, self.backbone.padded_size)
