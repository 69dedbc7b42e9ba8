"""Balanced group softmax on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     BAGS, https://arxiv.org/abs/2006.10408
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           mask_rcnn.res50.fpn.lvisv1.multiscale.1x
Cost:      90,000 iterations of 16 images, only the classifier is trained
Published: segm AP 23.1, APr 13.1, APc 22.5, APf 28.2
           with 12 epochs, then 12 of the classifier, 300 detections, RGB input, ResNet-50 of torchvision
Source:    README of tztztztztz/eqlv2
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import CLASSIFIER_PARAMETERS
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.res50.fpn.lvisv1.multiscale.1x", train_only=CLASSIFIER_PARAMETERS),
    schedule=dict(iters=90_000),
)
