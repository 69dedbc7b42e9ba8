"""Cosine classifier on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 21.330, APr 5.954, APc 18.767, APf 30.949
           segm AP 21.114, APr 6.747, APc 19.580, APf 29.140
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE)
