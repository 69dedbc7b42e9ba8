"""Repeat-factor sampling and a cosine classifier on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE, data=dict(sampler="repeat_factor", repeat_threshold=0.05))
