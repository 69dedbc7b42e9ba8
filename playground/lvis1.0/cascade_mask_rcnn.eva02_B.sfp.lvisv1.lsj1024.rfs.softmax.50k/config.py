"""EVA-02-B with softmax cross entropy, Cascade Mask R-CNN, LVIS v1.0, 1024 px.

Question:  how much of EVA-02's rare-class AP is due to the federated loss?
Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      50,000 iterations of 128 images at up to 1024 px
Published: nothing
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_LVIS1 as BASE

config = override(
    BASE,
    model=dict(score_threshold=0.0001),
)
