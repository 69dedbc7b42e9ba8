"""A small DINO with the equalized focal loss, LVIS in a box.

Question:  does balancing the gradients of classes lift rare ones in a small transformer detector?
Paper:     DINO, https://arxiv.org/abs/2203.03605; equalized focal loss, https://arxiv.org/abs/2201.02593
Run:       pods_train; pods_test
Cost:      1,200 iterations of 8 images at 96 px, from scratch, about ten minutes on two CPU cores
Note:      the loss was published for one-stage detectors; gradients are those of all decoder layers
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import MINI_DINO as BASE

config = override(BASE)
