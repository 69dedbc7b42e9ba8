"""Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 18.757, APr 0.910, APc 15.132, APf 30.646
           segm AP 18.296, APr 1.011, APc 15.640, APf 28.858
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE)
