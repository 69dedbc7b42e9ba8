"""EVA-02-L, Cascade Mask R-CNN, COCO, 1024 px (the authors' `eva02_L_coco_bsl`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      60,000 iterations of 144 images at up to 1024 px
Published: bbox AP 59.155; segm AP 50.7923
Source:    README of EVA-02's detection code (plain NMS, 100 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_COCO as BASE
from cvpods_ext.config.bases_eva02 import MIM

config = override(
    BASE,
    model=dict(init=MIM + "eva02_L_pt_m38m_p14to16.pt"),
    schedule=dict(lr=6e-5, batch_size=144, layer_decay=0.8),
)
