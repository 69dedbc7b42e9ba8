"""Mask R-CNN X101-64x4d-FPN, LVIS v1.0.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: nothing; the DisAlign tables have one ResNeXt-101, whose grouping they do not name
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE
from cvpods_ext.config.bases import X101_64X4D

config = override(BASE, model=dict(init=X101_64X4D))
