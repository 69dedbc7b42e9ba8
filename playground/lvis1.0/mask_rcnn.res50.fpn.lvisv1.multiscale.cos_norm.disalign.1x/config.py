"""DisAlign on a cosine classifier, Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after mask_rcnn.res50.fpn.lvisv1.multiscale.cos_norm.1x
Cost:      9,000 iterations of 16 images, only the calibration is trained
Published: bbox AP 24.729, APr 13.387, APc 23.377, APf 31.224
           segm AP 24.151, APr 13.207, APc 23.815, APf 29.337
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS1 as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.res50.fpn.lvisv1.multiscale.cos_norm.1x"),
)
