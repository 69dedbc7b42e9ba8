"""DisAlign on a cosine classifier, Mask R-CNN R101-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           mask_rcnn.res101.fpn.lvis.multiscale.cos_norm.1x
Cost:      4,500 iterations of 16 images, only the calibration is trained
Published: bbox AP 27.6, segm AP 28.1
Source:    README of the DisAlign repository, row MaskRCNN-R101-FPN-DisAlign cosine
           (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS05 as BASE

config = override(BASE, model=dict(init="experiment:mask_rcnn.res101.fpn.lvis.multiscale.cos_norm.1x"))
