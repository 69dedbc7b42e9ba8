"""DINO with a ResNet-50 and the equalized focal loss, LVIS v1.0, 1333 px.

Question:  does balancing the gradients of classes lift rare ones as much as asking about few classes does?
Paper:     DINO, https://arxiv.org/abs/2203.03605; equalized focal loss, https://arxiv.org/abs/2201.02593
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1333 px
Note:      the loss was published for one-stage detectors; gradients are those of all decoder layers
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_LVIS1 as BASE

config = override(BASE)
