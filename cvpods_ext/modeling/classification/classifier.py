"""An image classifier: a feature vector, its norm, a head; without a head it extracts features.

Shapes: B = images, S = side of an input in pixels, D = feature width, K = classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.classification.losses import ImageLoss
from cvpods_ext.modeling.classification.mixing import Mixing
from cvpods_ext.structures import Batch
from cvpods_ext.structures.classification import ClassScores

HEADLESS = (
    "this network has no classifier (head): it gives features (extract_feat), and has no classes to be trained on or "
    "asked for. Fine-tune it from a folder with a head, by model.init=<these weights>"
)


class ImageClassifier(nn.Module):
    """Images of one size in, losses or scores out; normalises by itself.

    `backbone` maps (B, 3, S, S) to (B, D). `fc_norm` stands between backbone and `head`, under the name of EVA-02's
    files. `mixing` mixes images in training.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: nn.Module,
        fc_norm: nn.Module,
        head: nn.Module | None,
        loss: ImageLoss,
        pixel_statistics: tuple[Sequence[float], Sequence[float]],
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        if mixing is not None and mixing.kinds and not loss.takes_mixtures:
            raise ConfigError(
                f"{type(loss).__name__} learns from one label an image, not from mixtures: set model.mixup and "
                "model.cutmix to 0, or take SmoothedCrossEntropy"
            )
        self.backbone, self.fc_norm, self.head = backbone, fc_norm, head
        self.loss, self.mixing = loss, mixing
        mean, std = pixel_statistics
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ClassScores]:
        """Scalars by name in training (see `losses`), else the scores of every image; ConfigError without a head."""
        if self.training:
            return self.losses(batch)
        scores = self.predict(batch).cpu()
        return [ClassScores(row, target.image_id) for row, target in zip(scores, batch.targets, strict=True)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """loss_cls, and acc_top1, the percentage of images whose largest share of a class is predicted."""
        labels = torch.tensor([target.label for target in batch.targets], device=self.pixel_mean.device)
        images, targets = self.preprocess(batch.images), labels
        if self.mixing is not None:
            images, targets = self.mixing(images, labels)
        logits = self._logits(images)
        with torch.no_grad():
            largest = targets if targets.ndim == 1 else targets.argmax(dim=1)
            accuracy = 100 * (logits.argmax(dim=1) == largest).float().mean()
        return {"loss_cls": self.loss(logits, targets), "acc_top1": accuracy}

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Scores (B, K) float32, still on the device."""
        return self.loss.scores(self._logits(self.preprocess(batch.images)))

    def extract_feat(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """uint8 (3, H, W) images of one size -> (B, D), what the head sees."""
        return self._features(self.preprocess(images))

    def preprocess(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """uint8 images (3, H, W) of one size -> normalised float32 (B, 3, H, W)."""
        stacked = images if isinstance(images, Tensor) else torch.stack(list(images))
        return (stacked - self.pixel_mean) / self.pixel_std

    def _features(self, images: Tensor) -> Tensor:
        return self.fc_norm(self.backbone(images))

    def _logits(self, images: Tensor) -> Tensor:
        if self.head is None:
            raise ConfigError(HEADLESS)
        return self.head(self._features(images))
