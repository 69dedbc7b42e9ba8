"""Cosine classifier: frequent classes cannot win by longer weight vectors.

Question:  which method lifts rare classes under one small recipe?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train; pods_test (make demo runs all mini experiments)
Cost:      minutes on two CPU cores
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE)
