"""Federated loss over what each image verifies on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     LVIS, https://arxiv.org/abs/1908.03195, section 3
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      uses the negative and not-exhaustive lists of every image
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
