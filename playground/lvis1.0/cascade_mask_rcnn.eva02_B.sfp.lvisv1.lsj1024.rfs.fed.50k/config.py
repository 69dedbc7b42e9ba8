"""EVA-02-B, Cascade Mask R-CNN, LVIS v1.0, 1024 px (the authors' `eva02_B_lvis_bsl`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      50,000 iterations of 128 images at up to 1024 px
Published: bbox AP 47.1304, APr 36.3894, APc 47.9805, APf 50.9023
           segm AP 41.3575, APr 32.2175, APc 42.5939, APf 43.9947
Source:    README of EVA-02's detection code (plain NMS, 300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_LVIS1 as BASE

config = override(BASE)
