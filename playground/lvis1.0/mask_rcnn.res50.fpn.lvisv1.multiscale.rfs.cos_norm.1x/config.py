"""Repeat-factor sampling and a cosine classifier, Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 23.768, APr 12.407, APc 22.012, APf 30.721
           segm AP 23.347, APr 13.784, APc 22.117, APf 28.922
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE, data=dict(sampler="repeat_factor"))
