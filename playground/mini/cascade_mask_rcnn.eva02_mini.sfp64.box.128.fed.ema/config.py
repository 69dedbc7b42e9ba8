"""A small relative of EVA-02: the same transformer, cascade, federated loss, layer decay and averaged weights.

Question:  do the parts of EVA-02's detector train together on a CPU?
Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train; pods_test
Cost:      800 iterations of 8 images at 128 px, minutes on two CPU cores
Note:      from scratch; `python benchmarks/eva02_mini.py` pre-trains it on hidden patches first, as EVA-02 is
"""

from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.bases import MINI as BASE

config = override(
    BASE,
    data=dict(sampler="repeat_factor", lsj_side=128, lsj_range=(0.7, 1.4), test_size=128),
    model=dict(
        init="none",
        rpn_convs=2,
        box_convs=(64,),
        box_fc=(256,),
        head_norm="LN",
        class_agnostic_boxes=True,
        float32_heads=True,
        suppression="linear",
        nms_threshold=0.6,
        maskness_threshold=0.5,
        score_threshold=0.01,
    ),
    schedule=dict(
        iters=800,
        decay=MultiStep(drops=(0.8, 0.9)),
        warmup_iters=80,
        lr=0.001,
        optimizer="adamw",
        weight_decay=0.1,
        decay_norms=True,
        layer_decay=0.8,
        ema_decay=0.99,
    ),
    test=dict(ema=True),
)
