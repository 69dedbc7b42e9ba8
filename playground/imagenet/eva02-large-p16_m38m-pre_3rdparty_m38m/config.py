"""EVA-02-L after masked image modelling on Merged-38M, patches of 16 px: features (`eva02_L_pt_m38m_p14to16`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Question:  what do the weights before any fine-tuning give as features of an image?
Run:       cvpods_ext.load("eva02-large-p16_m38m-pre_3rdparty_m38m", weights=FILE).extract_feat(...)
Cost:      no training, no test: there is no classifier
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_FEATURES as BASE
from cvpods_ext.config.bases_classification import MIM

config = override(BASE, model=dict(init=MIM + "eva02_L_pt_m38m_p14to16.pt"))
