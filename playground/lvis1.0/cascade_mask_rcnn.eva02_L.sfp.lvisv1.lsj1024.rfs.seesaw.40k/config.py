"""EVA-02-L with Seesaw loss, Cascade Mask R-CNN, LVIS v1.0, 1024 px.

Paper:     Seesaw loss, https://arxiv.org/abs/2008.10032
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      40,000 iterations of 128 images at up to 1024 px
Published: nothing
Note:      the loss counts what it has seen; continue with --resume, never from weights alone
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_L_LVIS1 as BASE

config = override(BASE, model=dict(score_threshold=0.0001))
