"""DisAlign on a cosine classifier, Cascade Mask R-CNN R50-FPN, LVIS v1.0.

Question:  do a cosine classifier and DisAlign lift a cascade as they lift a single box head?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
           Cascade R-CNN, https://arxiv.org/abs/1712.00726
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           cascade_mask_rcnn.res50.fpn.lvisv1.multiscale.cos_norm.1x
Cost:      9,000 iterations of 16 images, only the calibration is trained
Published: nothing; the DisAlign repository has this heading without rows
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import CASCADE
from cvpods_ext.config.bases import DISALIGN_LVIS1 as BASE

config = override(
    BASE, model=dict(**CASCADE, init="experiment:cascade_mask_rcnn.res50.fpn.lvisv1.multiscale.cos_norm.1x")
)
