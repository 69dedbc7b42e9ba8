"""Cosine classifier on Mask R-CNN X101-32x8d-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images
Published: bbox AP 27.4, segm AP 28.4
Source:    README of the DisAlign repository, row MaskRCNN-X101-FPN cosine
           (300 detections per image)
Note:      the source says ResNeXt-101 only; 32x8d is assumed, the ResNeXt-101 of detectron2's zoo
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE
from cvpods_ext.config.bases import X101_32X8D, X101_32X8D_STD

config = override(BASE, model=dict(init=X101_32X8D, pixel_std=X101_32X8D_STD))
