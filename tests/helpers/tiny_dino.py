"""A DINO that takes a training step in a fraction of a second, and batches for it."""

from collections.abc import Sequence

import torch

from cvpods_ext.config.detection import QueryDetector
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.losses import QueryLoss
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.structures import Batch, Targets

NUM_CLASSES = 7


def tiny_dino(*, queries: int = 12, loss: QueryLoss | None = None, seed: int = 0, classes: int = NUM_CLASSES) -> DINO:
    torch.manual_seed(seed)
    stages = [Stage(1, 8 * 2**i, 4 * 2**i) for i in range(4)]
    settings = QueryDetector(
        width=32, heads=4, hidden=48, encoder_layers=1, decoder_layers=3, points=2, queries=queries, denoising_number=4
    )
    backbone = ResNet(stages, stem_channels=8, freeze_at=0)
    return dino(settings, num_classes=classes, backbone=backbone, classification_loss=loss)


def tiny_batch(objects: Sequence[int], seed: int = 0) -> Batch:
    """One image per entry, of differing size, with so many objects."""
    rng = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for i, count in enumerate(objects):
        size = (64 + 8 * i, 72 - 8 * i)
        corner = torch.rand(count, 2, generator=rng) * 30
        side = 10 + torch.rand(count, 2, generator=rng) * 20
        labels = torch.randint(NUM_CLASSES, (count,), generator=rng)
        images.append(torch.randint(256, (3, *size), generator=rng, dtype=torch.uint8))
        targets.append(
            Targets(torch.cat((corner, corner + side), dim=1), labels, image_id=i, size=size, original_size=(128, 96))
        )
    return Batch(images, targets)
