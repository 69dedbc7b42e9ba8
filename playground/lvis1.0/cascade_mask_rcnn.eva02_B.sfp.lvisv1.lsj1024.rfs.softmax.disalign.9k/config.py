"""EVA-02-B with DisAlign on softmax heads, Cascade Mask R-CNN, LVIS v1.0, 1024 px.

Question:  does DisAlign still lift rare classes on an EVA-02 detector?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.softmax.50k
Cost:      9,000 iterations of 16 images, only the calibration is trained
Published: nothing
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_DISALIGN_LVIS1 as BASE

config = override(
    BASE,
    model=dict(init="experiment:cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.softmax.50k"),
)
