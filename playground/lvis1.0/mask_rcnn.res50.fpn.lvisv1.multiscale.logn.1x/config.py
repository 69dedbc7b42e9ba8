"""LogN after training of Mask R-CNN R50-FPN, LVIS v1.0.

Question:  which method lifts rare classes under one recipe, that of the standard model?
Paper:     LogN, https://arxiv.org/abs/2203.17020
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after mask_rcnn.res50.fpn.lvisv1.multiscale.1x
Cost:      no training, one pass over the training images, one test
Published: nothing collected; the paper's own tables are under other settings
Note:      running statistics as released, one image a batch: the number of batches of a process is part of the method
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.res50.fpn.lvisv1.multiscale.1x"),
    schedule=dict(fit="statistics", iters=12_522, batch_size=8, images_per_device=1),  # 100,170 images once
)
