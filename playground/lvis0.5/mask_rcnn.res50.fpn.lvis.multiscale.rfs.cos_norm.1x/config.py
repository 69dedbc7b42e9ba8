"""Repeat-factor sampling and a cosine classifier, Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images
Published: bbox AP 24.552, APr 12.421, APc 24.332, APf 29.671
           segm AP 24.920, APr 13.017, APc 25.795, APf 28.578
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE

config = override(BASE, data=dict(sampler="repeat_factor"))
