"""Seesaw loss on the pixels of a narrow UPerNet, LVIS in a box.

Question:  which method lifts classes of few pixels under one small recipe?
Paper:     Seesaw loss, https://arxiv.org/abs/2008.10032
Run:       pods_train; pods_test (benchmarks/segmentation_mini.py runs all of them)
Cost:      three minutes on a CPU core
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import SMALL_UPERNET as BASE

config = override(BASE)
