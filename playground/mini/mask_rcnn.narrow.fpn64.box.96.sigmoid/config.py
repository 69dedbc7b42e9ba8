"""Sigmoid cross entropy on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     Focal loss, https://arxiv.org/abs/1708.02002, its cross entropy without focus
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      the plain form of all sigmoid losses, to tell what each of them adds
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
