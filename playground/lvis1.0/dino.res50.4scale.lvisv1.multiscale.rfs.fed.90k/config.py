"""DINO with a ResNet-50 and the federated focal loss, LVIS v1.0, 1333 px.

Question:  does the federated loss lift rare classes in a transformer detector as in a two-stage one?
Paper:     DINO, https://arxiv.org/abs/2203.03605; federated loss, https://arxiv.org/abs/2103.07461
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1333 px
Note:      50 of 1,203 classes are asked about in each layer and step
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_LVIS1 as BASE

config = override(BASE)
