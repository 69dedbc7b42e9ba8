"""EVA-02-L, Cascade Mask R-CNN, LVIS v1.0, 1024 px (the authors' `eva02_L_lvis_bsl`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      40,000 iterations of 128 images at up to 1024 px
Published: bbox AP 55.2866, APr 50.6344, APc 56.7946, APf 55.6481
           segm AP 48.5964, APr 45.5442, APc 50.2401, APf 48.1034
Source:    README of EVA-02's detection code (plain NMS, 300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_L_LVIS1 as BASE

config = override(BASE)
