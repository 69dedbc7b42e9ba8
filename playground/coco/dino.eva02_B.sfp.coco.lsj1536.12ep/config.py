"""DINO with EVA-02-B, COCO, 1536 px (detrex's `dino_eva_02_vitdet_b_6attn_win32_1536_lrd0p7_4scale_12ep`).

Paper:     DINO, https://arxiv.org/abs/2203.03605; EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1536 px
Published: bbox AP 58.1
Source:    README of the DINO-EVA project in detrex (box AP of 100 detections per image)
Note:      boxes of cropped objects are clipped; the reference recomputes them from the cropped masks
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_EVA02_COCO as BASE

config = override(
    BASE,
    data=dict(lsj_side=1536, test_size=1536, test_max_size=1536),
)
