"""A segmentation network: maps of a backbone, a decoder, and a second head that helps in training.

Shapes: N = crops, S = side of a crop, K = classes, H, W = rows and columns of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.layers import trains
from cvpods_ext.modeling.segmentation import inference
from cvpods_ext.modeling.segmentation.inference import TestScales
from cvpods_ext.modeling.segmentation.layers import resize_map
from cvpods_ext.modeling.segmentation.losses import pixel_accuracy
from cvpods_ext.structures import Batch
from cvpods_ext.structures.segmentation import IGNORE, PredictedLabels

AUXILIARY_MAP = 2  # of the backbone's maps; the one that a plain ViT does not rescale


class Segmentor(nn.Module):
    """Images in, losses or label maps out; normalises, pads, and at test time resizes by itself.

    `loss` maps (N, K, S, S) logits and (N, S, S) labels to a scalar and serves both heads. `scales` say how an image
    is tested, whatever its size. `auxiliary_head` may be None.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: nn.Module,
        decode_head: nn.Module,
        auxiliary_head: nn.Module | None,
        loss: nn.Module,
        scales: TestScales,
        pixel_statistics: tuple[Sequence[float], Sequence[float]],
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.loss = loss
        self.scales = scales
        self.auxiliary_weight = auxiliary_weight
        mean, std = pixel_statistics
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[PredictedLabels]:
        """Scalars by name in training (see `losses`), else the label map of every image in its original size."""
        if self.training:
            return self.losses(batch)
        maps = [labels.cpu() for labels in self.predict(batch)]
        return [PredictedLabels(map_, target.image_id) for map_, target in zip(maps, batch.targets, strict=True)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """loss_decode and loss_aux (weighted), and the percentages acc_decode and acc_aux of right pixels."""
        crops, labels = self.preprocess(batch)
        maps = self.backbone(crops)
        size = (labels.shape[1], labels.shape[2])
        logits = resize_map(self.decode_head(maps).float(), size)
        found = {"loss_decode": self.loss(logits, labels), "acc_decode": pixel_accuracy(logits, labels)}
        if self.auxiliary_head is not None and (trains(self.backbone) or trains(self.auxiliary_head)):
            logits = resize_map(self.auxiliary_head(maps[AUXILIARY_MAP]).float(), size)
            found["loss_aux"] = self.auxiliary_weight * self.loss(logits, labels)
            found["acc_aux"] = pixel_accuracy(logits, labels)
        return found

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Tensor]:
        """uint8 label maps in the images' original sizes, still on the device; images come as they were decoded."""
        return [
            inference.predict(image, target.original_size, self.scales, self.normalise, self.crop_logits)
            for image, target in zip(batch.images, batch.targets, strict=True)
        ]

    def crop_logits(self, crops: Tensor) -> Tensor:
        """Normalised (N, 3, S, S) -> logits (N, K, ., .) at the resolution of the decoder."""
        return self.decode_head(self.backbone(crops))

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) -> float32 (3, H, W)."""
        return (image - self.pixel_mean) / self.pixel_std

    def preprocess(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalised crops (N, 3, S, S), zero beyond the image, and labels (N, S, S) int64, IGNORE beyond it."""
        side = self.scales.crop
        crops = self.pixel_mean.new_zeros((len(batch), 3, side, side))
        labels = []
        for crop, image, target in zip(crops, batch.images, batch.targets, strict=True):
            height, width = image.shape[1:]
            crop[:, :height, :width] = self.normalise(image)
            labels.append(F.pad(target.labels, (0, side - width, 0, side - height), value=IGNORE))
        return crops, torch.stack(labels).long()
