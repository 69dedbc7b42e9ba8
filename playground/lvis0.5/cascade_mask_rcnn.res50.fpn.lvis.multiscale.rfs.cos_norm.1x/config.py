"""Repeat-factor sampling and a cosine classifier, Cascade Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
           Cascade R-CNN, https://arxiv.org/abs/1712.00726
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images
Published: nothing; the DisAlign repository has this heading without rows
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE

config = override(BASE, data=dict(sampler="repeat_factor"))
