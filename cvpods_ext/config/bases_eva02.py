"""Starting points of the EVA-02 experiments: ViTDet with a Cascade Mask R-CNN, trained with large-scale jitter.

Recipe values: EVA-02 (Fang et al., https://arxiv.org/abs/2303.11331) and the detection configs that its authors
released. Every batch size is the published one; where it does not fit, gradients are accumulated.
"""

from __future__ import annotations

from cvpods_ext.config.bases import DISALIGN_PARAMETERS
from cvpods_ext.config.decay import MultiStep
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.override import override

# Weights after masked image modelling, with the patches already resampled from 14 to 16 pixels.
MIM = "https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/pt/"

# Heads of ViTDet: two convolutions propose, four convolutions and one layer classify, everything is normalised over
# channels, and mixed precision ends at the pyramid.
_HEADS = dict(rpn_convs=2, box_convs=(256,) * 4, box_fc=(1024,), head_norm="LN", float32_heads=True)

# ImageNet's RGB statistics; images are padded with the mean colour.
_RGB = dict(pixel_mean=(123.675, 116.28, 103.53), pixel_std=(58.395, 57.12, 57.375))

EVA02_COCO = override(
    DetectionConfig(),
    data=dict(
        train="coco_2017_train",
        test="coco_2017_val",
        channels="RGB",
        lsj_side=1024,
        test_size=1024,
        test_max_size=1024,
    ),
    model=dict(
        **_RGB,
        **_HEADS,
        class_agnostic_boxes=True,
        init=MIM + "eva02_B_pt_in21k_p14to16.pt",
        score_threshold=0.05,
        detections_per_image=100,
    ),
    schedule=dict(
        iters=60_000,
        decay=MultiStep(drops=(0.8, 0.9)),
        lr=5e-5,
        batch_size=128,
        optimizer="adamw",
        weight_decay=0.1,
        decay_norms=True,
        layer_decay=0.7,
        precision="fp16",
    ),
    test=dict(max_detections=100),
)

EVA02_LVIS1 = override(
    EVA02_COCO,
    data=dict(train="lvis_v1_train", test="lvis_v1_val", sampler="repeat_factor"),
    model=dict(score_threshold=0.02, detections_per_image=300),
    schedule=dict(iters=50_000, lr=1e-4),
    test=dict(max_detections=300),
    checkpoint_every=2_500,
)

EVA02_L_LVIS1 = override(
    EVA02_LVIS1,
    model=dict(init=MIM + "eva02_L_pt_in21k_p14to16.pt"),
    schedule=dict(iters=40_000, layer_decay=0.8),
)

# Models of Objects365 are fine-tuned at a constant rate, and their averaged weights are tested.
EVA02_L_COCO_FROM_O365 = override(
    EVA02_COCO,
    data=dict(lsj_side=1536, test_size=1536, test_max_size=1536),
    model=dict(
        init="experiment:../o365/cascade_rcnn.eva02_L.sfp.o365.lsj1536.m38m.400k",
        suppression="linear",
        nms_threshold=0.6,
        score_threshold=0.0,
        detections_per_image=0,
        detections_per_class=100,
    ),
    schedule=dict(
        iters=40_000,
        decay=MultiStep(drops=()),  # constant after the warm-up
        warmup_iters=400,
        lr=4e-5,
        batch_size=64,
        images_per_device=1,
        layer_decay=0.8,
        ema_decay=0.9999,
    ),
    test=dict(ema=True),
)

EVA02_O365 = override(
    EVA02_COCO,
    data=dict(train="objects365_trainval", test="objects365_val", lsj_side=1536, test_size=1536, test_max_size=1536),
    model=dict(init=MIM + "eva02_L_pt_m38m_p14to16.pt"),
    schedule=dict(iters=400_000, warmup_iters=5_000, lr=6e-5, batch_size=160, images_per_device=1, layer_decay=0.8),
    test=dict(metrics=("bbox",)),
    checkpoint_every=2_500,
)

# Second stage of DisAlign, with its authors' schedule: the calibration of every cascade stage is all that is trained.
EVA02_DISALIGN_LVIS1 = override(
    EVA02_LVIS1,
    data=dict(sampler="uniform"),
    model=dict(score_threshold=0.0001, train_only=DISALIGN_PARAMETERS),
    schedule=dict(
        iters=9_000,
        decay=MultiStep(drops=(8 / 9,)),
        lr=0.02,
        batch_size=16,
        optimizer="sgd",
        weight_decay=0.0001,
        decay_norms=False,
        layer_decay=1.0,
    ),
)
