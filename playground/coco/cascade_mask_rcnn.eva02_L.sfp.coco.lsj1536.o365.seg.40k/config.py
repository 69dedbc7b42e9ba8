"""EVA-02-L from Objects365, Cascade Mask R-CNN, COCO, 1536 px (the authors' `eva02_L_coco_seg_sys_o365`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           ../../o365/cascade_rcnn.eva02_L.sfp.o365.lsj1536.m38m.400k
Cost:      40,000 iterations of 64 images at up to 1536 px
Published: bbox AP 63.9; segm AP 55.3584
Source:    README of EVA-02's detection code (EMA, linear Soft-NMS, maskness, 100 detections per image and category)
Note:      box and mask model are two checkpoints of one recipe; here they differ in how they are tested
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_L_COCO_FROM_O365 as BASE

config = override(BASE, model=dict(maskness_threshold=0.5))
