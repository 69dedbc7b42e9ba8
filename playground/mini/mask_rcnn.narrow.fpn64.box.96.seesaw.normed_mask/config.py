"""Seesaw loss and a normalised mask predictor on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     Seesaw loss, https://arxiv.org/abs/2008.10032
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      the loss counts what it has seen; continue with --resume, never from weights alone
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
