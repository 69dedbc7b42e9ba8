"""Gumbel loss on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     GOL, https://arxiv.org/abs/2207.10936
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 19.1; segm AP 19.0, APr 4.9, APc 16.8, APf 27.6
           with 12 epochs, RGB input, ResNet-50 of torchvision
Source:    README of kostas1515/GOL
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE)
