"""EVA-02-Ti, 336 px, ImageNet-1k by mmpretrain's training config: mixtures of images, no layer decay.

Question:  how far is a config that was published beside weights of another recipe from that recipe?
Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      3,002,700 iterations of 128 images of 336 px
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_TI_IN1K_MMPRETRAIN as BASE

config = override(BASE)
