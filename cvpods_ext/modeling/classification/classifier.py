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


class ImageModel(nn.Module):
    """Images of one size in, losses or scores out; normalises by itself.

    A subclass has `features`, `logits` and `loss_of`, and may have `mixed` and `scores_of`.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, pixel_statistics: tuple[Sequence[float], Sequence[float]]) -> None:
        super().__init__()
        mean, std = pixel_statistics
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ClassScores]:
        """Scalars by name in training (see `losses`), else the scores of every image."""
        if self.training:
            return self.losses(batch)
        scores = self.predict(batch).cpu()
        return [ClassScores(row, target.image_id) for row, target in zip(scores, batch.targets, strict=True)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """loss_cls, and acc_top1, the percentage of images whose largest share of a class is predicted."""
        labels = torch.tensor([target.label for target in batch.targets], device=self.pixel_mean.device)
        images, targets = self.mixed(self.preprocess(batch.images), labels)
        logits = self.logits(images)
        with torch.no_grad():
            largest = targets if targets.ndim == 1 else targets.argmax(dim=1)
            accuracy = 100 * (logits.argmax(dim=1) == largest).float().mean()
        return {"loss_cls": self.loss_of(logits, targets), "acc_top1": accuracy}

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Scores (B, K) float32, still on the device."""
        return self.scores_of(self.logits(self.preprocess(batch.images)))

    def extract_feat(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """uint8 (3, H, W) images of one size -> (B, D), what the head sees."""
        return self.features(self.preprocess(images))

    def preprocess(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """uint8 images (3, H, W) of one size -> normalised float32 (B, 3, H, W)."""
        stacked = images if isinstance(images, Tensor) else torch.stack(list(images))
        return (stacked - self.pixel_mean) / self.pixel_std

    def features(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, H, W) -> (B, D)."""
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, H, W) -> (B, K)."""
        raise NotImplementedError

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K), labels (B,) or shares of classes (B, K) -> scalar."""
        raise NotImplementedError

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What is trained on in place of images and labels; they themselves unless a subclass mixes them."""
        return images, labels

    def scores_of(self, logits: Tensor) -> Tensor:
        """(B, K) -> (B, K) float32 in [0, 1]."""
        return logits.float().softmax(dim=1)


class ImageClassifier(ImageModel):
    """A backbone, a norm and a head; ConfigError where the head is asked for and there is none.

    `backbone` maps (B, 3, S, S) to (B, D). `fc_norm` stands between backbone and `head`, under the name of EVA-02's
    files. `mixing` mixes images in training.
    """

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
        super().__init__(pixel_statistics)
        if mixing is not None and mixing.kinds and not loss.takes_mixtures:
            raise ConfigError(
                f"{type(loss).__name__} learns from one label an image, not from mixtures: set model.mixup and "
                "model.cutmix to 0, or take SmoothedCrossEntropy"
            )
        self.backbone, self.fc_norm, self.head = backbone, fc_norm, head
        self.loss, self.mixing = loss, mixing

    def features(self, images: Tensor) -> Tensor:
        """Behind the norm."""
        return self.fc_norm(self.backbone(images))

    def logits(self, images: Tensor) -> Tensor:
        """Of the head."""
        if self.head is None:
            raise ConfigError(HEADLESS)
        return self.head(self.features(images))

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As `loss` says."""
        return self.loss(logits, targets)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `mixing` says."""
        return (images, labels) if self.mixing is None else self.mixing(images, labels)

    def scores_of(self, logits: Tensor) -> Tensor:
        """As `loss` reads logits."""
        return self.loss.scores(logits)
