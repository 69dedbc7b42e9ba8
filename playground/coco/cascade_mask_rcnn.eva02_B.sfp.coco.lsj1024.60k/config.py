"""EVA-02-B, Cascade Mask R-CNN, COCO, 1024 px (the authors' `eva02_B_coco_bsl`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      60,000 iterations of 128 images at up to 1024 px
Published: bbox AP 55.5017; segm AP 47.0794
Source:    README of EVA-02's detection code (plain NMS, 100 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_COCO as BASE

config = override(BASE)
