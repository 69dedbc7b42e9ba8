"""DINO with EVA-02-L, COCO, 1536 px (detrex's ``).

Paper:     DINO, https://arxiv.org/abs/2203.03605; EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           ../../o365/cascade_rcnn.eva02_L.sfp.o365.lsj1536.m38m.400k
Cost:      90,000 iterations of 16 images at up to 1536 px
Published: bbox AP 61.6
Source:    README of the DINO-EVA project in detrex (box AP of 100 detections per image)
Note:      rates are those of the script that trained the published model, not of its config: the backbone and
           the sampling offsets learn at 2e-5, all else at 2e-4, and there is no layer decay
Note:      boxes of cropped objects are clipped; the reference recomputes them from the cropped masks
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_EVA02_L_COCO as BASE

config = override(
    BASE,
    data=dict(lsj_side=1536, test_size=1536, test_max_size=1536),
    model=dict(init="experiment:../o365/cascade_rcnn.eva02_L.sfp.o365.lsj1536.m38m.400k"),
)
