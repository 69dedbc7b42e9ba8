"""Starting points of semantic segmentation: UPerNet on EVA-02, and a small network for a CPU.

Recipe values: EVA-02 (Fang et al., https://arxiv.org/abs/2303.11331) and the segmentation configs that its authors
released. Every batch size is the published one; where it does not fit, gradients are accumulated.
"""

from __future__ import annotations

from cvpods_ext.config.decay import Polynomial
from cvpods_ext.config.override import override
from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationConfig

# Weights after masked image modelling, with patches of 16 pixels; the table of 14 x 14 positions is resampled on load.
MIM = "https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/pt/"

UPERNET_EVA02_B_ADE20K = override(
    SegmentationConfig(),
    model=dict(init=MIM + "eva02_B_pt_in21k_p14to16.pt"),
    schedule=dict(
        iters=60_000,
        decay=Polynomial(),
        warmup_iters=1_500,
        warmup_factor=1e-6,
        lr=6e-5,
        batch_size=32,
        images_per_device=8,
        optimizer="adamw",
        weight_decay=0.05,
        decay_norms=True,
        decay_vectors=False,  # so of norms, biases and positions only the table of positions is decayed
        layer_decay=0.85,
        precision="fp16",
    ),
    test=dict(every=1_000),
    keep_best="sem_seg/mIoU",
    checkpoint_every=1_000,
    keep_checkpoints=4,
)

UPERNET_EVA02_L_ADE20K = override(
    UPERNET_EVA02_B_ADE20K,
    model=dict(init=MIM + "eva02_L_pt_m38m_p14to16.pt", drop_path=0.2, channels=1024),
    schedule=dict(iters=80_000, lr=4e-5, batch_size=16, images_per_device=2, layer_decay=0.9),
    keep_checkpoints=10,
)

# Images of `pods_data synth`, whose masks `pods_data label-maps` has written as label maps.
_BOX = {
    split: LabelMapFiles(
        images=f"coco/{split}2017",
        annotations=f"label_maps/{split}/{split}2017",
        classes="label_maps/train/classes.txt",
    )
    for split in ("train", "val")
}
SMALL_UPERNET = override(
    SegmentationConfig(),
    data=dict(train=_BOX["train"], test=_BOX["val"], crop_side=96, train_short=96, train_long=384, workers=2),
    model=dict(channels=64, auxiliary_channels=32, test_short=96, test_long=384, test_stride=64),
    schedule=dict(
        iters=800,
        decay=Polynomial(),
        warmup_iters=50,
        lr=1e-3,
        batch_size=8,
        images_per_device=8,
        optimizer="adamw",
        weight_decay=0.05,
        decay_vectors=False,
        clip_norm=1.0,
    ),
)
