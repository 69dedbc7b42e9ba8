"""Starting points of the ViTDet experiments: plain vision transformers that masked autoencoders pre-trained.

Recipe values: ViTDet (Li et al., https://arxiv.org/abs/2203.16527) as released with detectron2. EVA-02 is built on it;
what both share is written in `bases_eva02`.
"""

from __future__ import annotations

from cvpods_ext.config.bases_eva02 import EVA02_COCO, EVA02_LVIS1
from cvpods_ext.config.decay import MultiStep
from cvpods_ext.config.override import override

_MAE = dict(init="detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth")
_SCHEDULE = dict(decay=MultiStep(drops=(8 / 9, 26 / 27)), warmup_iters=250, batch_size=64, decay_norms=False)

VITDET_COCO = override(EVA02_COCO, model=_MAE, schedule=dict(**_SCHEDULE, iters=184_375, lr=1e-4))
VITDET_LVIS1 = override(EVA02_LVIS1, model=_MAE, schedule=dict(**_SCHEDULE, iters=156_250, lr=2e-4))
