"""A small DINO with the focal loss and scores adjusted by class counts, LVIS in a box.

Question:  does it help a transformer detector to divide its odds by the frequency of a class?
Paper:     DINO, https://arxiv.org/abs/2203.03605; logit adjustment, https://arxiv.org/abs/2007.07314
Run:       pods_test, after pods_train in dino.narrow.4scale.box.96
Cost:      a test
Note:      published for a softmax; on sigmoids it changes which of an image's detections are kept, and nothing else
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_dino import MINI_DINO as BASE

config = override(
    BASE,
    model=dict(init="experiment:dino.narrow.4scale.box.96"),
    schedule=dict(fit="none"),
)
