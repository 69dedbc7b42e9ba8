"""EVA-02-L from Objects365, Cascade Mask R-CNN, LVIS v1.0, 1536 px (the authors' `eva02_L_lvis_sys_o365`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           ../../o365/cascade_rcnn.eva02_L.sfp.o365.lsj1536.in21k.400k
Cost:      70,000 iterations of 64 images at up to 1536 px
Published: bbox AP 65.2244, APr 59.707, APc 66.8476, APf 65.8378
           segm AP 57.3209, APr 52.4748, APc 58.9491, APf 57.6336
Source:    README of EVA-02's detection code (EMA, linear Soft-NMS, maskness, 1000 detections per image)
Note:      1000 detections per image: not comparable with rows of 300
"""

from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.bases_eva02 import EVA02_L_LVIS1 as BASE

config = override(
    BASE,
    data=dict(lsj_side=1536, test_size=1536, test_max_size=1536),
    model=dict(
        init="experiment:../o365/cascade_rcnn.eva02_L.sfp.o365.lsj1536.in21k.400k",
        suppression="linear",
        nms_threshold=0.6,
        maskness_threshold=0.5,
        detections_per_image=1_000,
    ),
    schedule=dict(
        iters=70_000,
        decay=MultiStep(drops=()),  # constant after the warm-up
        warmup_iters=700,
        lr=4e-5,
        batch_size=64,
        images_per_device=1,
        ema_decay=0.9999,
    ),
    test=dict(max_detections=1_000, ema=True),
    checkpoint_every=5_000,
)
