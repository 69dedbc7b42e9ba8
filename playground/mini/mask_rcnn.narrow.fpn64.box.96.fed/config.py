"""Federated loss on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     Probabilistic two-stage detection, https://arxiv.org/abs/2103.07461
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      10 of 40 classes are asked for instead of 50 of 1,203, which would be all
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
