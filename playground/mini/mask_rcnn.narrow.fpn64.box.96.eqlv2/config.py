"""Equalization loss v2 on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     EQLv2, https://arxiv.org/abs/2012.08548
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      the loss remembers gradients; continue with --resume, never from weights alone
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
