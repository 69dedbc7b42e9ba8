"""DisAlign on a cosine classifier, Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.1x
Cost:      4,500 iterations of 16 images, only the calibration is trained
Published: bbox AP 26.315, APr 15.206, APc 26.363, APf 30.692
           segm AP 27.137, APr 16.253, APc 28.765, APf 29.445
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS05 as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.1x"),
)
