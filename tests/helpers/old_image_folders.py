"""Folders of image classification in the style of cvpods, written for these tests, and ImageNet-LT in miniature."""

from pathlib import Path

import numpy as np
from PIL import Image

CONFIG = """
import os.path as osp

from torchvision import transforms

from cvpods.configs.base_classification_config import BaseClassificationConfig
{imports}
_config_dict = dict(
    MODEL=dict(
        WEIGHTS={weights!r},
        RESNETS=dict(DEPTH=18, NUM_CLASSES=1000, OUT_FEATURES=["linear"]),
        {model}
    ),
    DATASETS=dict(TRAIN=("imagenetlt_train",), TEST=("imagenetlt_test",)),
    DATALOADER=dict(NUM_WORKERS=0),
    SOLVER=dict(
        LR_SCHEDULER=dict(NAME="WarmupCosineLR", MAX_EPOCH={epochs}, WARMUP_ITERS=0, EPOCH_WISE=True),
        OPTIMIZER=dict(BASE_LR=0.1, MOMENTUM=0.9, WEIGHT_DECAY=5e-4),
        CHECKPOINT_PERIOD=2,
        IMS_PER_BATCH=4,
        IMS_PER_DEVICE=2,
    ),
    INPUT=dict(
        AUG=dict(
            TRAIN_PIPELINES=[
                ("Torch_RRC", transforms.RandomResizedCrop(64)),
                ("Torch_RHF", transforms.RandomHorizontalFlip()),
                ("Torch_CJ", transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0)),
            ],
            TEST_PIPELINES=[
                ("Torch_R", transforms.Resize(73)),
                ("Torch_CC", transforms.CenterCrop(64)),
            ],
        )
    ),
    TEST=dict(EVAL_PERIOD=3),
    OUTPUT_DIR=osp.join("/data/Outputs/model_logs", osp.split(osp.realpath("."))[-1]),
)


class ImageNetConfig(BaseClassificationConfig):
    def __init__(self):
        super().__init__()
        self._register_configuration(_config_dict)


config = ImageNetConfig()
{after}
"""

NET = """
import json
import os

import torch

import cvpods
from cvpods.layers import DisAlignLinear, ShapeSpec
from cvpods.modeling.backbone import Backbone, build_resnet_backbone
from cvpods.modeling.losses import GRWCrossEntropyLoss
from cvpods.modeling.meta_arch.imagenet import Classification
from cvpods.utils import PathManager


def build_backbone(cfg, input_shape=None):
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = build_resnet_backbone(cfg, input_shape)
    assert isinstance(backbone, Backbone)
    return backbone


def build_model(cfg):
    cfg.build_backbone = build_backbone
    model = Classification(cfg)
    {change}
    return model
"""

ALIGN = """for parameter in model.network.parameters():
        parameter.requires_grad = False
    classes = cfg.MODEL.RESNETS.NUM_CLASSES
    model.network.linear = DisAlignLinear(model.network.linear.in_features, classes)
    for name, parameter in model.network.linear.named_parameters():
        parameter.requires_grad = name in ("logit_scale", "logit_bias") or name.startswith("confidence_layer")
    root = cvpods.__path__[0]
    root = root[: root.rfind("/")]
    with PathManager.open(os.path.join(root, "datasets", "./imagenetlt/category_frequency.json"), "r") as file:
        counts = json.load(file)["train_shots"]
    model.loss_evaluator = GRWCrossEntropyLoss(
        num_samples_list=counts, num_classes=classes, exp_scale=cfg.MODEL.GRW_SCALE
    )"""

CHECK = """

def check_checkpoint(path):
    plain = osp.join(osp.dirname(path), "plain_" + osp.basename(path))
    assert osp.exists(path), path + " is missing"
    torch.save({{"model": torch.load(path)["model"]}}, plain)


check_checkpoint("../{first}/log/model_final.pth")
"""


def plain(folder: Path, **config: object) -> Path:
    """A ResNet as it is; `config` fills the places of the config file."""
    folder.mkdir(parents=True)
    blank = dict(imports="", weights="", model="", epochs=6, after="")
    (folder / "config.py").write_text(CONFIG.format(**{**blank, **config}))
    (folder / "net.py").write_text(NET.format(change="pass"))
    return folder


def aligned(folder: Path, first: str, **config: object) -> Path:
    """A second stage: DisAlign on its linear layer, everything else frozen, rare classes weighted."""
    plain(
        folder,
        imports="import torch\n",
        weights=f"../{first}/log/plain_model_final.pth",
        model="GRW_SCALE=1.2,",
        epochs=3,
        after=CHECK.format(first=first),
        **config,
    )
    (folder / "net.py").write_text(NET.format(change=ALIGN))
    return folder


def data_root(root: Path, seed: int = 0) -> Path:
    """A root `datasets` with ImageNet-LT of 12 training and 6 test images, in three of the 1,000 classes."""
    rng = np.random.default_rng(seed)
    for split, counts in (("train", (7, 4, 1)), ("test", (2, 2, 2))):
        lines = []
        for label, count in zip((1, 207, 999), counts, strict=True):
            colour = (80 + 60 * (label % 3), 60 + 60 * (label % 4), 200 - 40 * (label % 5))
            for i in range(count):
                name = f"{split}/class_{label}/{i:03}.png"
                path = root / "imagenetlt" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.clip(np.array(colour) + rng.normal(0, 20, (80, 100, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path)
                lines.append(f"{name} {label}")
        (root / "imagenetlt" / f"ImageNet_LT_{split}.txt").write_text("\n".join(lines) + "\n")
    return root
