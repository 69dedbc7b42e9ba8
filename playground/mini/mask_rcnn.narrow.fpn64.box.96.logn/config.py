"""LogN after training of a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     LogN, https://arxiv.org/abs/2203.17020
Run:       pods_train; pods_test, after mask_rcnn.narrow.fpn64.box.96.plain (make zoo runs all mini experiments)
Cost:      no training, one pass over training images, one test
Note:      exact moments, since in 100 batches the released running statistics hardly move
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.narrow.fpn64.box.96.plain", init_skip=()),
    schedule=dict(fit="statistics", iters=100),
)
