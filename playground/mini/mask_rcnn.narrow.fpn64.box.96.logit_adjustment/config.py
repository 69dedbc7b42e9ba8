"""Logit adjustment after training on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     https://arxiv.org/abs/2007.07314
Run:       pods_test --weights FILE (make zoo runs all mini experiments), where FILE is
           ../mask_rcnn.narrow.fpn64.box.96.plain/outputs/model_final.pth
Cost:      no training, one test
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE, model=dict(init="experiment:mask_rcnn.narrow.fpn64.box.96.plain"), schedule=dict(fit="none"))
