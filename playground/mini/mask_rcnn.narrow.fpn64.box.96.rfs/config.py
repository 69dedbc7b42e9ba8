"""Repeat-factor sampling: images with rare classes are seen more often.

Question:  which method lifts rare classes under one small recipe?
Paper:     LVIS, https://arxiv.org/abs/1908.03195, appendix B.2
Run:       pods_train; pods_test (make demo runs all mini experiments)
Cost:      minutes on two CPU cores
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE, data=dict(sampler="repeat_factor", repeat_threshold=0.05))
