"""DINO with EVA-02-L and the federated focal loss, LVIS v1.0, 1024 px.

Question:  what does the strongest plain backbone bring to a transformer detector on LVIS?
Paper:     DINO, https://arxiv.org/abs/2203.03605; EVA-02, https://arxiv.org/abs/2303.11331; federated loss,
           https://arxiv.org/abs/2103.07461
Run:       pods_train --num-gpus 8; pods_test --num-gpus 8
Cost:      90,000 iterations of 16 images at up to 1024 px
Published: nothing; the authors of EVA-02 publish cascades on LVIS, and DINO on COCO only
Note:      50 of 1,203 classes are asked about in each layer and step; boxes of cropped objects are clipped
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import DINO_EVA02_L_COCO as BASE

config = override(
    BASE,
    data=dict(train="lvis_v1_train", test="lvis_v1_val", sampler="repeat_factor"),
    test=dict(max_detections=300),
)
