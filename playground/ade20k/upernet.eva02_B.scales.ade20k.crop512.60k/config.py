"""EVA-02-B, UPerNet, ADE20K, crops of 512 px (the authors' `upernet_eva02_base_12_512_slide_60k`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 4; pods_test --num-gpus 4
Cost:      60,000 iterations of 32 crops of 512 px
Published: sem_seg mIoU 55.25, mAcc 66.81, aAcc 85.41
Source:    evaluation records of the published checkpoints (EVA-02's segmentation code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import UPERNET_EVA02_B_ADE20K as BASE

config = override(BASE)
