"""EVA-02-L, Cascade Mask R-CNN, LVIS v1.0, 1536 px (the authors' `eva02_L_lvis_sys`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      40,000 iterations of 128 images at up to 1536 px
Published: bbox AP 60.0506, APr 53.1295, APc 61.7127, APf 61.2374
           segm AP 53.5098, APr 47.5871, APc 55.2739, APf 54.1442
Source:    README of EVA-02's detection code (linear Soft-NMS per class, maskness, 300 detections per image)
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_L_LVIS1 as BASE

config = override(
    BASE,
    data=dict(lsj_side=1536, test_size=1536, test_max_size=1536),
    model=dict(
        suppression="linear",
        nms_threshold=0.6,
        maskness_threshold=0.5,
    ),
    schedule=dict(images_per_device=1),
)
