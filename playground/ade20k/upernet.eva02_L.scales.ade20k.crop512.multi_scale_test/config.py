"""EVA-02-L, UPerNet, ADE20K, six scales and their mirror images at test time, weights of `crop512.80k`.

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_test --num-gpus 8, after upernet.eva02_L.scales.ade20k.crop512.80k
Cost:      no training; a test takes the time of about ten of one scale
Published: sem_seg mIoU 60.42, mAcc 72.54, aAcc 86.98
Source:    evaluation records of the published checkpoints (EVA-02's segmentation code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import UPERNET_EVA02_L_ADE20K as BASE

config = override(
    BASE,
    model=dict(
        init="experiment:upernet.eva02_L.scales.ade20k.crop512.80k",
        test_ratios=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        test_flip=True,
    ),
    schedule=dict(fit="none"),
    test=dict(every=0),
    keep_best="",
)
