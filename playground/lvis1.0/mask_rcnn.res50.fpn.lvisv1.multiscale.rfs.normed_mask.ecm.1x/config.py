"""Effective class margins, repeat-factor sampling, normalised predictors on Mask R-CNN R50-FPN, LVIS v1.0.

Paper:     ECM, https://arxiv.org/abs/2301.09724
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      180,000 iterations of 16 images
Published: bbox AP 26.9; segm AP 26.4
           with 12 epochs, threshold 0.0001, 300 detections, RGB input, ResNet-50 of torchvision
Source:    README of janghyuncho/ECM-Loss
Note:      sampling, warm-up, clipping and the normalised predictors are those of the released configs
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE

config = override(
    BASE,
    data=dict(sampler="repeat_factor"),
    schedule=dict(warmup_iters=10_000, warmup_factor=0.0001, clip_norm=5.0),
)
