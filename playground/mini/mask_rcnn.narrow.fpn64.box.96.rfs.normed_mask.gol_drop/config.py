"""Gumbel loss with DropLoss, repeat-factor sampling, normalised mask predictor on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     GOL, https://arxiv.org/abs/2207.10936
           DropLoss, https://arxiv.org/abs/2104.06402
Run:       pods_train; pods_test (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      the threshold covers the share of classes that LVIS's covers there
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE, data=dict(sampler="repeat_factor", repeat_threshold=0.05))
