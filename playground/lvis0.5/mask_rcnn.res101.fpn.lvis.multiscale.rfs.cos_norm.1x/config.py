"""Repeat-factor sampling and a cosine classifier, Mask R-CNN R101-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images
Published: bbox AP 26.6, segm AP 26.8
Source:    README of the DisAlign repository, row MaskRCNN-R101-FPN-RFS cosine
           (300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE
from cvpods_ext.config.bases import MSRA_R101

config = override(BASE, data=dict(sampler="repeat_factor"), model=dict(init=MSRA_R101))
