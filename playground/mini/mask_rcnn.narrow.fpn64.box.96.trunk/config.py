"""The network that every mini experiment starts from, as larger ones start from ImageNet weights.

Question:  what does each method of this folder add to one and the same start?
Paper:     Mask R-CNN, https://arxiv.org/abs/1703.06870
Run:       pods_train; pods_test (make demo runs all mini experiments)
Cost:      minutes on two CPU cores
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE, model=dict(init="none"), schedule=dict(iters=800))
