"""DisAlign around the linear classifier on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train; pods_test, after mask_rcnn.narrow.fpn64.box.96.plain (make zoo runs all mini experiments)
Cost:      minutes on two CPU cores
"""

from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.bases import DISALIGN_PARAMETERS
from cvpods_ext.config.bases import MINI as BASE

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.narrow.fpn64.box.96.plain", init_skip=(), train_only=DISALIGN_PARAMETERS),
    schedule=dict(iters=100, decay=MultiStep(drops=(8 / 9,))),
)
