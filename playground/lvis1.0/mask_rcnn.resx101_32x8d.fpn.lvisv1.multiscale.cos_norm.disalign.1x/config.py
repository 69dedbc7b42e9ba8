"""DisAlign on a cosine classifier, Mask R-CNN X101-32x8d-FPN, LVIS v1.0.

Question:  do a cosine classifier and DisAlign lift a larger backbone on LVIS v1.0 as published for v0.5?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           mask_rcnn.resx101_32x8d.fpn.lvisv1.multiscale.cos_norm.1x
Cost:      9,000 iterations of 16 images, only the calibration is trained
Published: nothing; the DisAlign repository has this heading without rows
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS1 as BASE
from cvpods_ext.config.bases import X101_32X8D_STD

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.resx101_32x8d.fpn.lvisv1.multiscale.cos_norm.1x", pixel_std=X101_32X8D_STD),
)
