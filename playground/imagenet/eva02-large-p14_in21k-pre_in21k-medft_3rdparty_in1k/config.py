"""EVA-02-L, 448 px, ImageNet-1k (the authors' `eva02_L_pt_in21k_medft_in21k_ft_in1k_p14`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      50,040 iterations of 512 images of 448 px
Published: classification top1 89.904, top5 98.974
Source:    evaluation records of the published checkpoints (EVA-02's classification code)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_L_IN1K as BASE
from cvpods_ext.config.bases_classification import IN21K, OTHER_HEAD

config = override(
    BASE,
    model=dict(init=IN21K + "eva02_L_pt_in21k_medft_in21k_p14.pt", init_skip=OTHER_HEAD),
    schedule=dict(iters=50_040, warmup_iters=5_004, lr=2e-5, batch_size=512, layer_decay=0.85),
)
