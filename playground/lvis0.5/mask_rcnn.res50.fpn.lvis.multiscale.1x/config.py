"""Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images
Published: bbox AP 20.355, APr 2.131, APc 18.613, APf 29.815
           segm AP 20.724, APr 2.370, APc 20.217, APf 28.690
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE

config = override(BASE)
