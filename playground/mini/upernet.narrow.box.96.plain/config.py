"""A narrow UPerNet on LVIS in a box, whose masks are label maps.

Question:  which method lifts classes of few pixels under one small recipe?
Paper:     UPerNet, https://arxiv.org/abs/1807.10221
Run:       pods_train; pods_test (benchmarks/segmentation_mini.py runs all of them)
Cost:      three minutes on a CPU core
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import SMALL_UPERNET as BASE

config = override(BASE)
