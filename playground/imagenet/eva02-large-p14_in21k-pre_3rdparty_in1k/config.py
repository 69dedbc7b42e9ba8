"""EVA-02-L, 448 px, ImageNet-1k (the authors' `eva02_L_pt_in21k_ft_in1k_p14`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      37,530 iterations of 1,024 images of 448 px
Published: classification top1 89.626, top5 98.954
Source:    evaluation records of the published checkpoints (EVA-02's classification code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_L_IN1K as BASE

config = override(BASE)
