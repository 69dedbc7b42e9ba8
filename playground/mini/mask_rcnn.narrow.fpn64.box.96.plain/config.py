"""Plain Mask R-CNN: uniform sampling, linear classifier, softmax cross entropy.

Question:  which method lifts rare classes under one small recipe?
Paper:     Mask R-CNN, https://arxiv.org/abs/1703.06870
Run:       pods_train; pods_test (make demo runs all mini experiments)
Cost:      minutes on two CPU cores
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
