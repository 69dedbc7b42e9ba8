"""EVA-02-L, Cascade R-CNN, intermediate fine-tuning on Objects365 (the authors' `eva02_L_m38m_to_o365`).

Question:  what does intermediate fine-tuning on Objects365 give to the detectors that start from it?
Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      400,000 iterations of 160 images at up to 1536 px
Note:      trains on train and val, so its validation results are not held out
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_O365 as BASE

config = override(BASE)
