"""EVA-02-L with cosine classifiers, Cascade Mask R-CNN, LVIS v1.0, 1024 px.

Paper:     DisAlign (cosine classifier), https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      40,000 iterations of 128 images at up to 1024 px
Published: nothing
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_L_LVIS1 as BASE

config = override(BASE)
