"""Equalization loss v2 on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     EQLv2, https://arxiv.org/abs/2012.08548
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 24.2, APr 13.5, APc 22.5, APf 30.8
           segm AP 23.7, APr 14.9, APc 22.8, APf 28.6
           with 12 epochs, 300 detections, NMS for each class, RGB input, ResNet-50 of torchvision
Source:    README of tztztztztz/eqlv2
Note:      the loss remembers gradients; continue with --resume, never from weights alone
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE)
