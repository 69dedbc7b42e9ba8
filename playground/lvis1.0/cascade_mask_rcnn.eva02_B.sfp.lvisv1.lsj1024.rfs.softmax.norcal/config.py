"""EVA-02-B with NorCal on softmax heads, Cascade Mask R-CNN, LVIS v1.0, 1024 px.

Question:  does NorCal, which trains nothing, still lift rare classes on an EVA-02 detector?
Paper:     NorCal, https://arxiv.org/abs/2107.02170
Run:       pods_test --num-gpus 8 --weights FILE, where FILE is
           ../cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.softmax.50k/outputs/model_final.pth
Cost:      no training, one test
Note:      class counts shift the logits of a trained softmax model; nothing is learnt
Published: nothing
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_LVIS1 as BASE

config = override(
    BASE,
    model=dict(init="experiment:cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.softmax.50k", score_threshold=0.0001),
    schedule=dict(fit="none"),
)
