"""Cosine classifier on Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images
Published: bbox AP 22.998, APr 9.719, APc 21.584, APf 30.073
           segm AP 23.789, APr 10.452, APc 23.872, APf 29.011
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE

config = override(BASE)
