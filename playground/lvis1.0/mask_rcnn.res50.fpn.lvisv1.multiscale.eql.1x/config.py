"""Equalization loss on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     EQL, https://arxiv.org/abs/2003.05176
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: segm AP 18.6, APr 2.1, APc 17.4, APf 27.2
           with 12 epochs, 300 detections, NMS for each class, RGB input, ResNet-50 of torchvision
Source:    README of tztztztztz/eqlv2
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE)
