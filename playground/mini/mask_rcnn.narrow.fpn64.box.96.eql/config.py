"""Equalization loss on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     EQL, https://arxiv.org/abs/2003.05176
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      the threshold covers the share of classes that LVIS's covers there
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
