"""Seesaw loss on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     Seesaw loss, https://arxiv.org/abs/2008.10032
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 25.6, segm AP 25.0
           with 24 epochs, threshold 0.0001, 300 detections, RGB input, ResNet-50 of torchvision
Source:    configs/seesaw_loss/README.md of mmdetection
Note:      the loss counts what it has seen; continue with --resume, never from weights alone
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE)
