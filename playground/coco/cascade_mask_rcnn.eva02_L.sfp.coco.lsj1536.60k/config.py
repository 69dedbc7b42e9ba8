"""EVA-02-L, Cascade Mask R-CNN, COCO, 1536 px (the authors' `eva02_L_coco_sys`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      60,000 iterations of 128 images at up to 1536 px
Published: bbox AP 62.2848; segm AP 53.8006
Source:    README of EVA-02's detection code (linear Soft-NMS per class, 100 detections per image and
           category; segm with maskness)
Note:      the bbox number is published without maskness: pods_test model.maskness_threshold=0.0
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_COCO as BASE
from cvpods_ext.config.bases_eva02 import MIM

config = override(
    BASE,
    data=dict(lsj_side=1536, test_size=1536, test_max_size=1536),
    model=dict(
        init=MIM + "eva02_L_pt_m38m_p14to16.pt",
        score_threshold=0.0,
        suppression="linear",
        nms_threshold=0.6,
        detections_per_image=0,
        detections_per_class=100,
        maskness_threshold=0.5,
    ),
    schedule=dict(images_per_device=1, layer_decay=0.8),
)
