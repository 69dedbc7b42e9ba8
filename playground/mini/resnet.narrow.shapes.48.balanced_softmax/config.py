"""Balanced softmax for a narrow ResNet on shapes of 20 classes.

Question:  which method lifts few-shot classes under one small recipe?
Paper:     BALMS, https://arxiv.org/abs/2007.10740
Run:       pods_train; pods_test (benchmarks/classification_mini.py runs all of them)
Cost:      half a minute on a CPU core
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import SMALL_CLASSIFIER as BASE

config = override(BASE)
