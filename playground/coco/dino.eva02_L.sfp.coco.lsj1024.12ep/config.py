"""DINO with EVA-02-L, COCO, 1024 px (detrex's `dino_eva_02_vitdet_l_4attn_1024_lrd0p8_4scale_12ep`).

Paper:     DINO, https://arxiv.org/abs/2203.03605; EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1024 px
Published: bbox AP 58.9
Source:    README of the DINO-EVA project in detrex (box AP of 100 detections per image)
Note:      rates are those of the script that trained the published model, not of its config: the backbone and
           the sampling offsets learn at 2e-5, all else at 2e-4, and there is no layer decay
Note:      boxes of cropped objects are clipped; the reference recomputes them from the cropped masks
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_EVA02_L_COCO as BASE

config = override(BASE)
