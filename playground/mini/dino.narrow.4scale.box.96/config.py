"""A small DINO with the focal loss, LVIS in a box.

Question:  does a transformer detector learn from scratch under a small recipe?
Paper:     DINO, https://arxiv.org/abs/2203.03605
Run:       pods_train; pods_test
Cost:      1,200 iterations of 8 images at 96 px, from scratch, about ten minutes on two CPU cores
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import MINI_DINO as BASE

config = override(BASE)
