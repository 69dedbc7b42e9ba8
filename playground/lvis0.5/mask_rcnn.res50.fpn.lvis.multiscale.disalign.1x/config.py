"""DisAlign on Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after mask_rcnn.res50.fpn.lvis.multiscale.1x
Cost:      4,500 iterations of 16 images, only the calibration is trained
Published: bbox AP 23.723, APr 6.614, APc 24.277, APf 29.861
           segm AP 24.319, APr 8.205, APc 26.062, APf 28.572
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS05 as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.res50.fpn.lvis.multiscale.1x"),
)
