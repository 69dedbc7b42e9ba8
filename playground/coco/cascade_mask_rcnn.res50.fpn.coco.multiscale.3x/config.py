"""Cascade Mask R-CNN R50-FPN, COCO, 3x.

Paper:     Cascade R-CNN, https://arxiv.org/abs/1712.00726
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      270,000 iterations of 16 images
Published: bbox AP 44.3, segm AP 38.5
Source:    MODEL_ZOO.md of detectron2, cascade_mask_rcnn_R_50_FPN_3x, 144998488
           (100 detections per image, threshold 0.05, NMS 0.5)
"""

from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.bases import CASCADE
from cvpods_ext.config.bases import RCNN_COCO as BASE

config = override(BASE, model=CASCADE, schedule=dict(iters=270_000, decay=MultiStep(drops=(7 / 9, 25 / 27))))
