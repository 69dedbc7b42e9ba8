"""FRACAL after training on a narrow Mask R-CNN, LVIS in a box.

Question:  which method lifts rare classes under one small recipe?
Paper:     FRACAL, https://arxiv.org/abs/2410.11774
Run:       pods_test --weights FILE (make zoo runs all mini experiments), where FILE is
           ../mask_rcnn.narrow.fpn64.box.96.plain/outputs/model_final.pth
Cost:      no training, one test
Note:      building the network reads the training json once, for the centres of all boxes
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI as BASE

config = override(BASE, model=dict(init="experiment:mask_rcnn.narrow.fpn64.box.96.plain"), schedule=dict(fit="none"))
