"""Balanced group softmax on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     BAGS, https://arxiv.org/abs/2006.10408
Run:       pods_train; pods_test, after mask_rcnn.narrow.fpn64.box.96.plain (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
Note:      the groups have about the shares of classes that they have on LVIS
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import CLASSIFIER_PARAMETERS
from cvpods_ext.config.bases import MINI as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.narrow.fpn64.box.96.plain", init_skip=(), train_only=CLASSIFIER_PARAMETERS),
    schedule=dict(iters=200),
)
