"""EVA-02-B, 448 px, ImageNet-1k (the authors' `eva02_B_pt_in21k_ft_in1k_p14`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      37,530 iterations of 1,024 images of 448 px
Published: classification top1 88.282, top5 98.528
Source:    evaluation records of the published checkpoints (EVA-02's classification code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_B_IN1K as BASE

config = override(BASE)
