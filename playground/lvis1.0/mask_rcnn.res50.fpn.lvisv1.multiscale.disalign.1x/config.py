"""DisAlign on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after mask_rcnn.res50.fpn.lvisv1.multiscale.1x
Cost:      9,000 iterations of 16 images, only the calibration is trained
Published: bbox AP 21.928, APr 3.304, APc 21.068, APf 31.075
           segm AP 21.289, APr 3.156, APc 21.382, APf 29.154
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS1 as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.res50.fpn.lvisv1.multiscale.1x"),
)
