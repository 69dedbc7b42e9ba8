"""ViTDet with the ViT-B of MAE, Mask R-CNN, COCO, 1024 px.

Paper:     ViTDet, https://arxiv.org/abs/2203.16527; MAE, https://arxiv.org/abs/2111.06377
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      184,375 iterations of 64 images at up to 1024 px (100 epochs)
Published: bbox AP 51.6; segm AP 45.9
Source:    README of ViTDet in detectron2 (NMS, 100 detections per image)
Weights:   https://dl.fbaipublicfiles.com/detectron2/ViTDet/COCO/mask_rcnn_vitdet_b/f325346929/model_final_61ccd1.pkl
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_vitdet import VITDET_COCO as BASE

config = override(BASE, model=dict(class_agnostic_boxes=False))
