"""EVA-02-L with softmax cross entropy, Cascade Mask R-CNN, LVIS v0.5, 1024 px.

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      40,000 iterations of 128 images at up to 1024 px
Published: nothing
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_L_LVIS05 as BASE

config = override(BASE, model=dict(score_threshold=0.0001))
