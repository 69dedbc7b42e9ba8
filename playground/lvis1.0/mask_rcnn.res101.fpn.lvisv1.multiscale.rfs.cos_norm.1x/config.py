"""Repeat-factor sampling and a cosine classifier, Mask R-CNN R101-FPN, LVIS v1.0.

Question:  do a cosine classifier and DisAlign lift a larger backbone on LVIS v1.0 as published for v0.5?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: nothing; the DisAlign repository has this heading without rows
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE
from cvpods_ext.config.bases import MSRA_R101

config = override(BASE, data=dict(sampler="repeat_factor"), model=dict(init=MSRA_R101))
