"""DINO with a ResNet-50 and the federated focal loss, LVIS v1.0, tested with 1,000 detections an image.

Question:  how much of a transformer detector's AP of rare classes does the limit of 300 detections take?
Paper:     DINO, https://arxiv.org/abs/2203.03605; limits of LVIS, https://arxiv.org/abs/2102.01066
Run:       pods_test --num-gpus 8, after pods_train in dino.res50.4scale.lvisv1.multiscale.rfs.fed.90k
Cost:      a test
Note:      an extension: LVIS evaluates 300 detections an image; 900 queries give 1,082,700 pairs of box and class
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_LVIS1 as BASE

config = override(
    BASE,
    model=dict(init="experiment:dino.res50.4scale.lvisv1.multiscale.rfs.fed.90k", detections_per_image=1000),
    schedule=dict(fit="none"),
    test=dict(max_detections=1000),
)
