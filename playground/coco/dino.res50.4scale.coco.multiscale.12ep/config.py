"""DINO with a ResNet-50, COCO, 1333 px.

Question:  how close does DINO come to its published AP without DETR's random crop?
Paper:     DINO, https://arxiv.org/abs/2203.03605
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1333 px
Note:      without the random crop of DETR's augmentation, which the published 12-epoch model has
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_COCO as BASE

config = override(BASE)
