"""Balanced softmax on Mask R-CNN R50-FPN, LVIS v1.0.

Question:  which method lifts rare classes under one recipe, that of the standard model?
Paper:     BALMS, https://arxiv.org/abs/2007.10740
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: nothing for this detector
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(BASE)
