"""EVA-02-L, UPerNet, ADE20K, crops of 512 px (the authors' `upernet_eva02_large_24_512_slide_80k`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      80,000 iterations of 16 crops of 512 px
Published: sem_seg mIoU 59.77, mAcc 72.05, aAcc 86.67
Source:    evaluation records of the published checkpoints (EVA-02's segmentation code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import UPERNET_EVA02_L_ADE20K as BASE

config = override(BASE)
