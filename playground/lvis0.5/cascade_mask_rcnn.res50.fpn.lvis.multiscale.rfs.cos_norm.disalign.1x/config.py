"""DisAlign on repeat-factor sampling and a cosine classifier, Cascade Mask R-CNN R50-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
           Cascade R-CNN, https://arxiv.org/abs/1712.00726
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           cascade_mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.1x
Cost:      4,500 iterations of 16 images, only the calibration is trained
Published: nothing; the DisAlign repository has this heading without rows
Note:      the second stage samples images uniformly, as published; repeat-factor sampling is in the first
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS05 as BASE

config = override(BASE, model=dict(init="experiment:cascade_mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.1x"))
