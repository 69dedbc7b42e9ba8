"""EVA-02-L, UPerNet, ADE20K, crops of 640 px (the authors' `upernetpro_eva02_large_24_640_slide_80k`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      80,000 iterations of 16 crops of 640 px
Published: sem_seg mIoU 60.05, mAcc 72.17, aAcc 86.83
Source:    evaluation records of the published checkpoints (EVA-02's segmentation code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import UPERNET_EVA02_L_ADE20K as BASE

config = override(
    BASE,
    data=dict(crop_side=640, train_short=640, train_long=2560),
    model=dict(channels=1536, auxiliary_channels=1536, test_short=640, test_long=2560, test_stride=426),
)
