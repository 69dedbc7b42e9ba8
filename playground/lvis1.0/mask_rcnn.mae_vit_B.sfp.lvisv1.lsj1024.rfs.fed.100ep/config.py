"""ViTDet with the ViT-B of MAE, Mask R-CNN, LVIS v1.0, 1024 px.

Paper:     ViTDet, https://arxiv.org/abs/2203.16527; MAE, https://arxiv.org/abs/2111.06377
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      156,250 iterations of 64 images at up to 1024 px (100 epochs)
Published: bbox AP 40.2; segm AP 38.2
Source:    README of ViTDet in detectron2 (NMS, 300 detections per image)
Weights:   https://dl.fbaipublicfiles.com/detectron2/ViTDet/LVIS/mask_rcnn_vitdet_b/329225748/model_final_5251c5.pkl
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_vitdet import VITDET_LVIS1 as BASE

config = override(BASE, model=dict(class_agnostic_boxes=False))
