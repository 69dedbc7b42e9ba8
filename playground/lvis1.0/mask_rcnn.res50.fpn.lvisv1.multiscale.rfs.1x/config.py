"""Repeat-factor sampling on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 22.921, APr 11.406, APc 20.924, APf 30.211
           segm AP 22.455, APr 12.274, APc 20.904, APf 28.662
Source:    README of the DisAlign repository (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE, data=dict(sampler="repeat_factor"))
