"""DINO with EVA-02-B, COCO, 1024 px (detrex's `dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep`).

Paper:     DINO, https://arxiv.org/abs/2203.03605; EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1024 px
Published: bbox AP 55.8
Source:    README of the DINO-EVA project in detrex (box AP of 100 detections per image)
Note:      boxes of cropped objects are clipped; the reference recomputes them from the cropped masks
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_EVA02_COCO as BASE

config = override(BASE)
