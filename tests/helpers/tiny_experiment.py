"""A complete experiment that trains in milliseconds a step, with everything in it that a run must carry over.

Batch norm, random choices inside the step, the running memory of a loss, momentum, an average of the weights, random
augmentation, repeat-factor sampling. The network classifies each annotated box by the colours inside it.
"""

from pathlib import Path

from cvpods_ext.data.synthetic.write import SyntheticFiles, generate

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI
from cvpods_ext.config.schema import DatasetFiles

config = override(
    MINI,
    data=dict(
        train=DatasetFiles(annotations={train!r}, images={images!r}),
        test=DatasetFiles(annotations={val!r}, images={images!r}),
        sampler="repeat_factor",
        repeat_threshold=0.5,
        train_sizes=(40, 48),
        train_max_size=64,
    ),
    model=dict(init="none"),
    test=dict(metrics=("bbox",)),
    schedule=dict(
        iters=12, warmup_iters=3, batch_size=4, images_per_device=1, lr=0.05, ema_decay=0.9, optimizer={optimizer!r}
    ),
    checkpoint_every=4,
    log_every=1,
    picture_every=0,
)
"""

NET = """
import os
import time

import torch
from torch import nn
from torchvision.ops import roi_align

from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.structures import Detections


class Tiny(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(a, b, 3, stride=2), nn.BatchNorm2d(b), nn.ReLU()) for a, b in ((3, 8), (8, 16))]
        )
        self.loss = {loss}
        self.classes = classes
        self.predictor = nn.Linear(16, classes + 1 + getattr(self.loss, "extra_logits", 0))
        self.batches = 0  # seen by this process

    def features(self, image):
        x = image[None].float() / 255
        for block in self.blocks:
            x = block(x)
        return x

    def detect(self, batch):
        # Windows of three sizes, each of which may be something.
        time.sleep(float(os.environ.get("TINY_TEST_SECONDS", "0")))
        found = []
        places = [(x, y, n) for n in (2, 3, 4) for x in range(2 * n - 1) for y in range(2 * n - 1)]
        windows = torch.tensor([[x / n, y / n, (x + 2) / n, (y + 2) / n] for x, y, n in places]) / 2
        for image, target in zip(batch.images, batch.targets):
            x = self.features(image)
            (height, width), size = x.shape[-2:], target.original_size
            pooled = roi_align(x, [windows * torch.tensor([width, height, width, height])], 1).flatten(1)
            scores, labels = self.loss.scores(self.predictor(pooled)).max(dim=1)
            order = scores.argsort(descending=True)
            boxes = windows * torch.tensor([size[1], size[0], size[1], size[0]])
            found.append(Detections(boxes[order], scores[order], labels[order], target.image_id, size))
        return found

    def forward(self, batch):
        if not self.training:
            return self.detect(batch)
        time.sleep(float(os.environ.get("TINY_SECONDS", "0")))
        losses = []
        for image, target in zip(batch.images, batch.targets):
            x = self.features(image)
            boxes = target.boxes * x.shape[-1] / image.shape[-1]
            boxes = torch.cat((boxes, torch.rand(4, 2).mul(5).repeat(1, 2) + torch.tensor([0.0, 0.0, 4.0, 4.0])))
            labels = torch.cat((target.labels, target.labels.new_full((4,), self.classes)))
            pooled = roi_align(x, [boxes], 1).flatten(1)
            pooled = pooled * (torch.rand_like(pooled) > 0.2)
            losses.append(self.loss(self.predictor(pooled), labels))
        rank, batches = os.environ.get("TINY_NAN", "-1:-1").split(":")
        bad = os.environ.get("RANK", "0") == rank and self.batches == int(batches)
        scale = float("nan") if bad else 1.0
        self.batches += 1
        decay = 1e-3 * self.predictor.weight.square().sum()
        return {{"loss_cls": torch.stack(losses).mean() * scale, "loss_norm": decay}}


def build_model(cfg):
    from cvpods_ext.data.catalog import num_classes

    classes = num_classes(cfg.data, cfg.folder)
    return Tiny(classes)
"""


def make_data(root: Path) -> SyntheticFiles:
    return generate(root / "data", images_train=24, images_val=4, num_classes=5, image_size=64)


def make_experiment(
    folder: Path, data: SyntheticFiles, loss: str = "EqualizationLossV2(classes)", optimizer="sgd"
) -> Path:
    """Write config.py and net.py into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"train": str(data.train), "val": str(data.val), "images": str(data.root / "coco")}
    (folder / "config.py").write_text(CONFIG.format(**names, optimizer=optimizer))
    (folder / "net.py").write_text(NET.format(loss=loss))
    return folder
