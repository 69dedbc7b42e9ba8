"""Repeat-factor sampling on Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images
Published: bbox AP 23.544, APr 12.802, APc 22.497, APf 29.145
           segm AP 24.192, APr 14.450, APc 24.031, APf 28.284
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE

config = override(BASE, data=dict(sampler="repeat_factor"))
