"""Gumbel loss with DropLoss, repeat-factor sampling, normalised mask predictor on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     GOL, https://arxiv.org/abs/2207.10936
           DropLoss, https://arxiv.org/abs/2104.06402
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 27.5; segm AP 27.7, APr 21.4, APc 27.7, APf 30.4
           with 24 epochs, NMS 0.3 and threshold 0.0001 in its sibling configs, RGB input, ResNet-50 of torchvision
Source:    README of kostas1515/GOL
Note:      tested with the siblings' NMS, since the config of the published row itself is not in the repository
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE, data=dict(sampler="repeat_factor"), model=dict(nms_threshold=0.3))
