"""Repeat-factor sampling and a re-weighted loss for a narrow UPerNet, LVIS in a box.

Question:  which method lifts classes of few pixels under one small recipe?
Paper:     DisAlign (generalised re-weighting), https://arxiv.org/abs/2103.16370
Run:       pods_train; pods_test (benchmarks/segmentation_mini.py runs all of them)
Cost:      three minutes on a CPU core
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import SMALL_UPERNET as BASE

config = override(BASE, data=dict(sampler="repeat_factor", repeat_threshold=0.05))
