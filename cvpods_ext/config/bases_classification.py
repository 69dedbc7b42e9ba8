"""Starting points of image classification: EVA-02 on ImageNet-1k in two recipes, and a small network for a CPU.

Recipe values: EVA-02 (Fang et al., https://arxiv.org/abs/2303.11331), the commands that its authors released with the
weights, and mmpretrain 1.2.0's training config, which is not how the released weights were made. An epoch is
1,281,167 images. The authors' commands average weights and leave the rate of that at their code's default, .9999.
"""

from __future__ import annotations

from cvpods_ext.config.classification import ClassificationConfig, ImageFiles
from cvpods_ext.config.decay import Cosine
from cvpods_ext.config.override import override

# Weights after masked image modelling, and after fine-tuning on ImageNet-21k behind it.
MIM = "https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/pt/"
IN21K = "https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/cls/in21k/"
# The classifier of 21,841 classes is not that of ImageNet-1k.
OTHER_HEAD = (r"head\.(weight|bias)",)

EVA02_TI_IN1K = override(
    ClassificationConfig(),
    data=dict(image_side=336, auto_augment="rand-m9-mstd0.5-inc1"),
    model=dict(init=MIM + "eva02_Ti_pt_in21k_p14.pt", drop_path=0.1, smoothing=0.1),
    schedule=dict(
        iters=125_100,
        decay=Cosine(),
        warmup_iters=6_255,
        warmup_factor=0.0,
        lr=2e-4,
        batch_size=1_024,
        images_per_device=128,
        optimizer="adamw",
        weight_decay=0.05,
        decay_vectors=False,
        layer_decay=0.9,
        precision="bf16",
        ema_decay=0.9999,
    ),
    test=dict(ema=True, every=12_510),
    keep_best="classification/top1",
    checkpoint_every=12_510,
)

EVA02_S_IN1K = override(
    EVA02_TI_IN1K, model=dict(init=MIM + "eva02_S_pt_in21k_p14.pt"), schedule=dict(lr=1e-4, layer_decay=0.8)
)

EVA02_B_IN1K = override(
    EVA02_TI_IN1K,
    data=dict(image_side=448),
    model=dict(init=MIM + "eva02_B_pt_in21k_p14.pt"),
    schedule=dict(iters=37_530, warmup_iters=3_753, lr=1e-4, images_per_device=32, layer_decay=0.7),
)

EVA02_L_IN1K = override(
    EVA02_B_IN1K,
    model=dict(init=MIM + "eva02_L_pt_in21k_p14.pt", drop_path=0.15, smoothing=0.2),
    schedule=dict(lr=5e-5, images_per_device=16, layer_decay=0.8),
)

# Pre-trained networks without a classifier: features of an image, nothing to train or to test.
EVA02_FEATURES = override(ClassificationConfig(), schedule=dict(fit="none"))

# mmpretrain's training config: a high rate without layer decay, mixtures of images, 300 epochs of 128 images.
EVA02_TI_IN1K_MMPRETRAIN = override(
    ClassificationConfig(),
    data=dict(image_side=336),
    model=dict(init=MIM + "eva02_Ti_pt_in21k_p14.pt", smoothing=0.1, mixup=0.8, cutmix=1.0),
    schedule=dict(
        iters=3_002_700,
        decay=Cosine(end=1e-5 / 1.5e-3),
        warmup_iters=150_135,
        warmup_factor=1e-3,
        lr=1.5e-3,
        batch_size=128,
        images_per_device=16,
        optimizer="adamw",
        weight_decay=0.3,
        decay_vectors=False,
        precision="bf16",
    ),
)

# Images of `pods_data synth-classes`.
_SHAPES = {split: ImageFiles(images=f"shapes/{split}") for split in ("train", "val")}
SMALL_CLASSIFIER = override(
    ClassificationConfig(),
    data=dict(train=_SHAPES["train"], test=_SHAPES["val"], image_side=48, crop_area=(0.5, 1.0), workers=0),
    schedule=dict(
        iters=600,
        decay=Cosine(),
        warmup_iters=30,
        lr=0.1,
        batch_size=32,
        images_per_device=32,
        weight_decay=5e-4,
        decay_vectors=False,
    ),
)

# A second stage of DisAlign trains its own values alone, for a tenth of the iterations.
DISALIGN_PARAMETERS = (r"head\.logit_scale", r"head\.logit_bias", r"head\.confidence_layer\.(weight|bias)")
