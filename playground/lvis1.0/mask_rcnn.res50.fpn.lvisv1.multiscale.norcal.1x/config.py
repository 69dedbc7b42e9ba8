"""NorCal after training of Mask R-CNN R50-FPN, LVIS v1.0.

Question:  which method lifts rare classes under one recipe, that of the standard model?
Paper:     NorCal, https://arxiv.org/abs/2107.02170
Run:       pods_test --num-gpus 8 --weights FILE, where FILE is
           ../mask_rcnn.res50.fpn.lvisv1.multiscale.1x/outputs/model_final.pth
Cost:      no training, one test
Published: nothing collected; the paper's own tables are under other settings
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(
    BASE, model=dict(init="experiment:mask_rcnn.res50.fpn.lvisv1.multiscale.1x"), schedule=dict(fit="none")
)
