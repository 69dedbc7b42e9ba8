"""DisAlign on a cosine classifier, Mask R-CNN X101-32x8d-FPN, LVIS v0.5.

Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8, after
           mask_rcnn.resx101_32x8d.fpn.lvis.multiscale.cos_norm.1x
Cost:      4,500 iterations of 16 images, only the calibration is trained
Published: bbox AP 29.6, segm AP 30.2
Source:    README of the DisAlign repository, row MaskRCNN-X101-FPN-DisAlign cosine
           (300 detections per image)
Note:      the source says ResNeXt-101 only; 32x8d is assumed, the ResNeXt-101 of detectron2's zoo
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import DISALIGN_LVIS05 as BASE
from cvpods_ext.config.bases import X101_32X8D_STD

config = override(
    BASE,
    model=dict(init="experiment:mask_rcnn.resx101_32x8d.fpn.lvis.multiscale.cos_norm.1x", pixel_std=X101_32X8D_STD),
)
