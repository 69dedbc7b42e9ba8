"""DINO with EVA (one billion parameters) from Objects365, COCO, 1280 px (detrex's `dino-eva-01`).

Paper:     DINO, https://arxiv.org/abs/2203.03605; EVA, https://arxiv.org/abs/2211.07636
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1280 px
Published: bbox AP 62.1
Source:    README of the DINO-EVA project in detrex (box AP of 100 detections per image)
Note:      starts from the authors' detector on Objects365: put their file eva_o365.pth into this folder
Note:      boxes of cropped objects are clipped; the reference recomputes them from the cropped masks
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_EVA02_COCO as BASE

config = override(
    BASE,
    data=dict(lsj_side=1280, test_size=1280, test_max_size=1280),
    model=dict(init="eva_o365.pth"),
    schedule=dict(layer_decay=0.9),
)
