"""EVA-02-Ti, 336 px, ImageNet-1k (the authors' `eva02_Ti_pt_in21k_ft_in1k_p14`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      125,100 iterations of 1,024 images of 336 px
Published: classification top1 80.714, top5 95.536
Source:    evaluation records of the published checkpoints (EVA-02's classification code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_TI_IN1K as BASE

config = override(BASE)
